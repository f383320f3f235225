"""Weights that stand in for trained ones: by a formula, to compare two implementations without a file, or random, to measure speed.

Both draw from the same ranges, in which the networks' values stay of order one.
"""

from __future__ import annotations

import math
import zlib
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

POSITIONS = "embed_positions.weight"  # Whisper's: sinusoids, in trained files as well
_BATCHES = "num_batches_tracked"


def formula_weights(network: Network, salt: str) -> Network:
    """Fill a float32 network on the CPU, in place, by the formula of temp/tests/golden/README.md; returns it, ready for inference.

    The network may be on the meta device. salt: "unet:", "vae:", "whisper.encoder:" or "bisenet:"; it makes equal names of different
    networks differ.
    """
    if any(tensor.is_meta for tensor in network.parameters()):
        network.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(formula_tensor(name, tuple(tensor.shape), salt))
    return network.eval().requires_grad_(requires_grad=False)


def formula_tensor(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """One parameter: uniform numbers that a Mersenne Twister seeded with CRC-32(salt + name) gives, in the parameter's range."""
    if name.endswith(POSITIONS):
        return sinusoids(*shape)
    if name.endswith(_BATCHES):
        return torch.tensor(1)
    centre, reach = _range(name, shape)
    numbers = np.random.RandomState(zlib.crc32((salt + name).encode())).random_sample(math.prod(shape))
    numbers *= 2  # in place, because the largest tensor has 29 million of them
    numbers -= 1
    uniform = numbers.astype(np.float32).reshape(shape)
    uniform *= np.float32(reach)
    uniform += np.float32(centre)
    return torch.from_numpy(uniform)


def random_weights(network: Network, seed: int = 0, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Network:
    """Fill a network with random numbers made on `device`, in `dtype`; returns it, ready for inference.

    The network may be on the meta device: nothing but its final parameters is ever in memory.
    """
    network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(POSITIONS):
                tensor.copy_(sinusoids(*tensor.shape))
            elif name.endswith(_BATCHES):
                tensor.fill_(1)
            else:
                centre, reach = _range(name, tuple(tensor.shape))
                tensor.uniform_(centre - reach, centre + reach, generator=generator)
    return network.eval().requires_grad_(requires_grad=False)


def sinusoids(positions: int, channels: int) -> Tensor:
    """Whisper's positions, float32 [positions, channels]: sines in the first half, cosines in the second (openai/whisper, model.py)."""
    half = channels // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and reach: a product of unit variance keeps it (sqrt(3 / inputs)), norms scale by about 1."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1, 0.5
    if len(shape) >= 2:
        return 0, math.sqrt(3 / math.prod(shape[1:]))
    return (1, 0.1) if leaf == "weight" else (0, 0.1)
