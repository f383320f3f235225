"""Golden data of the networks: their parameters' names and shapes, and the sizes that a file's name tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from gpuserver.musetalk.golden.files import GoldenFile
from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder


@dataclass(frozen=True, slots=True)
class Sizes:
    """The configurations of the networks that draw."""

    unet: UNetConfig
    vae: VaeConfig
    whisper: WhisperConfig


TINY = Sizes(UNetConfig.tiny(), VaeConfig.tiny(), WhisperConfig.tiny())
FULL = Sizes(UNetConfig.official(), VaeConfig.official(), WhisperConfig.official())

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "unet_tiny": lambda: UNet(TINY.unet),
    "unet_full": lambda: UNet(FULL.unet),
    "vae_tiny": lambda: Vae(TINY.vae),
    "vae_full": lambda: Vae(FULL.vae),
    "whisper_encoder_tiny": lambda: WhisperEncoder(TINY.whisper),
    "whisper_encoder_full": lambda: WhisperEncoder(FULL.whisper),
    "bisenet": BiSeNet,
}


def check_manifest(file: GoldenFile, content: object) -> None:
    """content: the parameters' shapes, by network and name. The error is the number of parameters that differ."""
    for name, golden in cast(dict[str, dict[str, list[int]]], content).items():
        if name not in NETWORKS:
            file.fail(f"{name} is no network that is known")
            continue
        ours = shapes(NETWORKS[name])
        different = [key for key in ours.keys() | golden.keys() if ours.get(key) != golden.get(key)]
        file.note(name, len(different), 0, ", ".join(sorted(different)[:3]))


def shapes(make: Callable[[], nn.Module]) -> dict[str, list[int]]:
    """Every parameter of a network by its name; nothing is allocated."""
    with torch.device("meta"):
        network = make()
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
