"""Steps of the UNet and the VAE that a GPU does better as one than one after the other. The results differ by rounding only.

A GPU's convolutions want all channels of a pixel side by side. torch's CUDA group norm wants each channel by itself, so that around
every norm the whole picture is turned over twice, and a bias, an activation or a sum is one more pass through memory each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Operations(Protocol):
    """Passes through memory that do several things at once. Pixels are [B, C, H, W] with the channels side by side, in and out."""

    def norm(self, norm: nn.GroupNorm, pixels: Tensor, bias: Tensor | None, *, activate: bool) -> Tensor:
        """norm(pixels + bias), through SiLU where `activate` is set. bias: [C] or None."""
        ...

    def add(self, pixels: Tensor, others: Tensor, bias: Tensor) -> Tensor:
        """pixels + others + bias; may write into `pixels`. bias: float32 [C]."""
        ...


class Upsampling(Enum):
    """How a picture is doubled in size by repetition and convolved. Both of the latter take 4/9 of the products."""

    REPEATED = "repeated"
    TRANSPOSED = "transposed"  # one transposed convolution of 4 x 4 with stride 2
    INTERLEAVED = "interleaved"  # one convolution of 2 x 2 for the four pixels that each one becomes, which are then put in their places


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is one step. operations: of norms, activations, biases and sums; None: nothing of these."""

    operations: Operations | None = None
    upsampling: Upsampling = Upsampling.REPEATED


class Fusible(nn.Module):
    """A module that can do its work in either way.

    What it computes of its weights for that is computed once and stays where it is: a recording of the network may read it.
    """

    def fuse(self, fusion: Fusion) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        """Give back what was computed for ways that are not used now."""


def fuse(network: nn.Module, fusion: Fusion) -> None:
    """Let all parts of a network, whose weights are final, work so from now on. May be called again, with another fusion."""
    for module in network.modules():
        if isinstance(module, Fusible):
            module.fuse(fusion)


def forget(network: nn.Module) -> None:
    """What was computed for other fusions than the present one; no recording may use it any more."""
    for module in network.modules():
        if isinstance(module, Fusible):
            module.forget()


class PlainOperations:
    """Implements Operations with torch's own, on any device: no picture is turned over, and four passes replace nine."""

    def norm(self, norm: nn.GroupNorm, pixels: Tensor, bias: Tensor | None, *, activate: bool) -> Tensor:
        batch, channels, height, width = pixels.shape
        grouped = pixels.permute(0, 2, 3, 1).reshape(batch, height * width, norm.num_groups, -1)
        if bias is not None:
            grouped = grouped + bias.view(norm.num_groups, -1)
        variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0, keepdim=True)
        weight, offset = norm.weight.view(norm.num_groups, -1), norm.bias.view(norm.num_groups, -1)
        scale = (variance.float() + norm.eps).rsqrt() * weight
        offset = offset - mean * scale
        normal = torch.addcmul(offset.to(pixels.dtype), grouped, scale.to(pixels.dtype))
        if activate:
            normal = functional.silu(normal, inplace=True)
        return normal.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def add(self, pixels: Tensor, others: Tensor, bias: Tensor) -> Tensor:
        return pixels.add_(others).add_(bias.to(pixels.dtype)[:, None, None])


def convolved(convolution: nn.Conv2d, pixels: Tensor) -> Tensor:
    """Without the bias, which torch would add in a pass of its own."""
    return functional.conv2d(pixels, convolution.weight, None, convolution.stride, convolution.padding)


@torch.no_grad()
def total_bias(*convolutions: nn.Conv2d | None) -> Tensor:
    """[C], of convolutions whose results are added; None adds nothing."""
    biases = [each.bias.float() for each in convolutions if each is not None and each.bias is not None]
    return torch.stack(biases).sum(dim=0)


# Of three weights, those that meet the same pixel when every pixel is repeated: for the first of both pixels that one becomes, which
# lies between its left neighbour and itself, and for the second, between itself and its right neighbour.
_MET = ([[1.0, 0, 0], [0, 1, 1]], [[1.0, 1, 0], [0, 0, 1]])


@torch.no_grad()
def interleaved(convolution: nn.Conv2d) -> Tensor:
    """[4 x out, in, 2, 2]: convolved with it, one pixel of padding around, a picture gives its pixels' four successors; see place()."""
    weight = convolution.weight.float()
    met = [weight.new_tensor(each) for each in _MET]
    parts = [torch.einsum("ai,ocij,bj->ocab", rows, weight, columns) for rows in met for columns in met]
    return torch.cat(parts).to(convolution.weight.dtype).contiguous(memory_format=torch.channels_last)


def place(successors: Tensor, bias: Tensor) -> Tensor:
    """[B, 4 C, H + 1, W + 1] -> [B, C, 2 H, 2 W], plus bias."""
    batch, height, width = len(successors), successors.shape[2] - 1, successors.shape[3] - 1
    placed = successors.new_empty(batch, 2 * height, 2 * width, len(bias))
    for index, part in enumerate(successors.permute(0, 2, 3, 1).chunk(4, dim=3)):
        row, column = divmod(index, 2)
        torch.add(part[:, row : row + height, column : column + width], bias, out=placed[:, row::2, column::2])
    return placed.permute(0, 3, 1, 2)


@torch.no_grad()
def transposed(convolution: nn.Conv2d) -> Tensor:
    """[in, out, 4, 4]: a transposed convolution with it, stride 2 and padding 1 repeats every pixel in both directions, then convolves."""
    flipped = convolution.weight.float().flip(2, 3).transpose(0, 1)
    shifted = [functional.pad(flipped, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)]
    return torch.stack(shifted).sum(dim=0).to(convolution.weight.dtype).contiguous(memory_format=torch.channels_last)
