"""Loads the official weight files of MuseTalk into our networks, strictly: every parameter with its name and shape, and no other.

MuseTalk 1.0 and 1.5 have the same graph, so that a file of one in the place of the other cannot be told by its shapes;
`gpuserver models check` tells them by size and hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gpuserver.errors import WeightsDamaged, WeightsMissing
from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.weight_files.checkpoint import State, read_checkpoint
from gpuserver.musetalk.weight_files.key_names import vae_names, whisper_names
from gpuserver.musetalk.weight_files.made_up_weights import Network, random_weights
from gpuserver.musetalk.weight_files.model_files import NEEDS, Need, Version, models_folder

__all__ = ["load_bisenet", "load_unet", "load_vae", "load_whisper", "random_weights"]

_NAMED_IN_AN_ERROR = 3  # wrong parameters; one mistake often makes hundreds wrong
_LONGEST_NAME = 100  # characters; the official ones have 67 at most


def load_unet(
    base: Path, version: Version, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, *, config: UNetConfig | None = None
) -> UNet:
    """The network that draws the mouth, of one of MuseTalk's versions.

    As all of these: base is MUSETALK_BASE, dtype None is suitable_dtype(device), config None the official sizes.
    Raises WeightsMissing, and WeightsDamaged for a file that is not exactly this network.
    """
    with torch.device("meta"):
        unet = UNet(config or UNetConfig.official())
    return _load(unet, _need(f"UNet {version}"), base, device, dtype)


def load_vae(base: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, *, config: VaeConfig | None = None) -> Vae:
    """The network between pictures and latents, from either of its folders, with old or new names."""
    with torch.device("meta"):
        vae = Vae(config or VaeConfig.official())
    return _load(vae, _need("VAE"), base, device, dtype, names=vae_names)


def load_whisper(
    base: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, *, config: WhisperConfig | None = None
) -> WhisperEncoder:
    """The network that hears, from Hugging Face's files or OpenAI's own `tiny.pt`."""
    with torch.device("meta"):
        whisper = WhisperEncoder(config or WhisperConfig.official())
    return _load(whisper, _need("Whisper tiny"), base, device, dtype, names=whisper_names)


def load_bisenet(base: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> BiSeNet:
    """The network that tells the parts of a face."""
    with torch.device("meta"):
        bisenet = BiSeNet()
    return _load(bisenet, _need("BiSeNet"), base, device, dtype)


def suitable_dtype(device: torch.device | str, *, fast: bool = False) -> torch.dtype:
    """float16 on a GPU, as upstream has it; float32 on a CPU, which is exact.

    fast: bfloat16 on a CPU with AVX-512, where it halves the time and costs about one level of a picture's 256.
    """
    if torch.device(device).type != "cpu":
        return torch.float16
    return torch.bfloat16 if fast and "AVX512" in torch.backends.cpu.get_cpu_capability() else torch.float32


def _need(name: str) -> Need:
    return next(need for need in NEEDS if need.name == name)


def _load(
    network: Network,
    need: Need,
    base: Path,
    device: torch.device | str,
    dtype: torch.dtype | None,
    *,
    names: Callable[[State], State] = lambda state: state,
) -> Network:
    path = need.found(base)
    if path is None:
        wanted = need.choices[0]
        raise WeightsMissing(
            f"{need.name} is missing: there is no {models_folder(base) / wanted.path}.",
            advice=f"`gpuserver models download` gets it; it is published at {wanted.page}.",
        )
    state = names(read_checkpoint(path))
    faults = differences(network, state)
    if faults:
        raise WeightsDamaged(
            f"{path} is not {need.name}: {'; '.join(faults)}.",
            advice=f"`gpuserver models check` looks at every file; the right one is published at {need.choices[0].page}.",
        )
    network.load_state_dict(state, assign=True)
    return network.to(device, dtype or suitable_dtype(device)).eval().requires_grad_(requires_grad=False)


def differences(network: torch.nn.Module, state: State) -> list[str]:
    """How a state differs from what the network needs, in plain words; empty if it fits."""
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    unknown = [_readable(name) for name in state if name not in wanted]
    common = [name for name in wanted if name in state]
    misshapen = [
        f"{name} {_shape(state[name])} instead of {_shape(wanted[name])}" for name in common if state[name].shape != wanted[name].shape
    ]
    of_other_kind = [name for name in common if state[name].is_floating_point() != wanted[name].is_floating_point()]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen), ("of another number type", of_other_kind))
    return [f"{_tensors(len(found))} {what} ({_first(found)})" for what, found in kinds if found]


def _tensors(count: int) -> str:
    return "1 tensor is" if count == 1 else f"{count} tensors are"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_IN_AN_ERROR]) + (", …" if len(names) > _NAMED_IN_AN_ERROR else "")


def _readable(name: str) -> str:
    """A name out of a file, which may hold anything, fit for a terminal."""
    return name if name.isprintable() and len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]!a} …"


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "a single number"
