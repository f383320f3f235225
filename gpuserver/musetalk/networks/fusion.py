"""Steps of the UNet and the VAE that a GPU does better as one than one after the other. The results differ by rounding only.

A GPU's convolutions want all channels of a pixel side by side. torch's CUDA group norm wants each channel by itself, so that around
every norm the whole picture is turned over twice, and a bias, an activation or a sum is one more pass through memory each.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is one step. operations: of norms, activations, biases and sums; None: nothing of these.

    upsampling: doubling the size and convolving, as one transposed convolution with 4/9 of the products.
    """

    operations: Operations | None = None
    upsampling: bool = False


class Fusible(nn.Module):
    """A module that can do its work in either way.

    What it computes of its weights for that is computed once and stays where it is: a recording of the network may read it.
    """

    def fuse(self, fusion: Fusion) -> None:
        raise NotImplementedError


def fuse(network: nn.Module, fusion: Fusion) -> None:
    """Let all parts of a network, whose weights are final, work so from now on. May be called again, with another fusion."""
    for module in network.modules():
        if isinstance(module, Fusible):
            module.fuse(fusion)


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


@torch.no_grad()
def transposed(convolution: nn.Conv2d) -> Tensor:
    """[in, out, 4, 4]: a transposed convolution with it, stride 2 and padding 1 repeats every pixel in both directions, then convolves.

    A repeated pixel meets two neighbouring weights of three, whose sum is one weight of the four.
    """
    flipped = convolution.weight.float().flip(2, 3).transpose(0, 1)
    shifted = [functional.pad(flipped, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)]
    return torch.stack(shifted).sum(dim=0).to(convolution.weight.dtype).contiguous(memory_format=torch.channels_last)
