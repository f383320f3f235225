"""Weight files in the official formats and names, of tiny networks. The networks are shared: nothing may change them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.weight_files.made_up_weights import random_weights

UNET_V15 = "musetalkV15/unet.pth"
UNET_V10 = "musetalk/pytorch_model.bin"
WHISPER = "whisper/pytorch_model.bin"
BISENET = "face-parse-bisent/79999_iter.pth"

State = Mapping[str, Tensor]

OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OPENAI_LAYER = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}


@cache
def tiny_unet(seed: int = 0) -> UNet:
    with torch.device("meta"):
        unet = UNet(UNetConfig.tiny())
    return random_weights(unet, seed)


@cache
def tiny_vae() -> Vae:
    with torch.device("meta"):
        vae = Vae(VaeConfig.tiny())
    return random_weights(vae)


@cache
def tiny_whisper() -> WhisperEncoder:
    with torch.device("meta"):
        whisper = WhisperEncoder(WhisperConfig.tiny())
    return random_weights(whisper)


@cache
def bisenet() -> BiSeNet:
    with torch.device("meta"):
        network = BiSeNet()
    return random_weights(network)


def write(base: Path, name: str, content: object, *, legacy: bool = False) -> Path:
    """A file below MUSETALK_BASE/models: safetensors, or as torch.save() writes it; legacy: as torch did before 1.6."""
    path = base / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        assert isinstance(content, Mapping)
        safetensors.torch.save_file(dict(content), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def old_vae_names(state: State) -> dict[str, Tensor]:
    """The names of the .bin format."""
    renamed = {}
    for name, tensor in state.items():
        old = name
        for new_part, old_part in OLD_ATTENTION.items():
            old = old.replace(f".attentions.0.{new_part}.", f".attentions.0.{old_part}.")
        renamed[old] = tensor
    return renamed


def openai_names(state: State) -> dict[str, Tensor]:
    """The names of OpenAI's own format, with a tensor of the decoder beside."""
    renamed = {"decoder.ln.weight": torch.ones(1)}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "layers":
            own, leaf = ".".join(parts[2:-1]), parts[-1]
            renamed[f"encoder.blocks.{parts[1]}.{OPENAI_LAYER[own]}.{leaf}"] = tensor
        else:
            named = {
                "embed_positions.weight": "positional_embedding",
                "layer_norm.weight": "ln_post.weight",
                "layer_norm.bias": "ln_post.bias",
            }
            renamed[f"encoder.{named.get(name, name)}"] = tensor
    return renamed


def whole_whisper(state: State, prefix: str) -> dict[str, Tensor]:
    """The encoder as Hugging Face has it within a whole model, with a tensor of the decoder beside."""
    return {f"{prefix}decoder.layer_norm.weight": torch.ones(1), **{f"{prefix}encoder.{name}": tensor for name, tensor in state.items()}}


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same parameters."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def smallest_networks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the official sizes be the smallest possible ones, and put weights of V1.5 for them, in the official formats, below `base`."""
    unet, vae = UNetConfig((32, 32, 32, 32), 64), VaeConfig((32, 32, 32, 32))
    for config, small in ((UNetConfig, unet), (VaeConfig, vae), (WhisperConfig, WhisperConfig.tiny())):
        monkeypatch.setattr(config, "official", classmethod(lambda _cls, small=small: small))
    write(base, UNET_V15, dict(random_weights(UNet(unet)).state_dict()))
    write(base, "sd-vae/diffusion_pytorch_model.bin", old_vae_names(random_weights(Vae(vae)).state_dict()))
    write(base, WHISPER, whole_whisper(tiny_whisper().state_dict(), "model."))
