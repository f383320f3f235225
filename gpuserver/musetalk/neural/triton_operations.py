"""Norms with bias and activation, and sums with bias, as kernels in Triton, which comes with torch's CUDA builds.

Pixels are [B, H x W, C] in memory. A norm reads them twice and writes them once: moments of tiles, a scale and an offset per
channel, and the pixels times the one plus the other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_TILE = 64  # pixels of a tile
_MOST_TILES = 64  # whose moments are joined


class TritonOperations:
    """Implements networks.fusion.Operations for pixels on a GPU whose number is a multiple of 64, with channels in multiples of 32."""

    def norm(self, norm: nn.GroupNorm, pixels: Tensor, bias: Tensor | None, *, activate: bool) -> Tensor:
        pixels, (batch, area, channels, block) = _laid_out(pixels)
        parts = max(1, min(_MOST_TILES, area // (2 * _TILE)))
        means, squares = pixels.new_empty(2, batch, parts, channels, dtype=torch.float32)
        _moments[(parts, channels // block, batch)](
            pixels, means, squares, area, channels, SIZE=area // parts, TILE=_TILE, BLOCK=block, num_warps=8
        )
        scale, offset = pixels.new_empty(2, batch, channels, dtype=torch.float32)
        size = channels // norm.num_groups
        _scale[(norm.num_groups, batch)](
            means,
            squares,
            norm.weight,
            norm.bias,
            norm.bias if bias is None else bias,
            scale,
            offset,
            area // parts,
            channels,
            norm.eps,
            SIZE=size,
            PADDED=triton.next_power_of_2(size),
            PARTS=parts,
            BIASED=bias is not None,
            num_warps=4,
        )
        normal = torch.empty_like(pixels)
        _apply[(area // _TILE, channels // block, batch)](
            pixels, scale, offset, normal, area, channels, TILE=_TILE, BLOCK=block, ACTIVATE=activate, num_warps=4
        )
        return normal

    def add(self, pixels: Tensor, others: Tensor, bias: Tensor) -> Tensor:
        pixels, (batch, area, channels, block) = _laid_out(pixels)
        others = others.contiguous(memory_format=torch.channels_last)
        _add[(area // _TILE, channels // block, batch)](pixels, others, bias, area, channels, TILE=_TILE, BLOCK=block, num_warps=4)
        return pixels


def _laid_out(pixels: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """With the channels side by side; pictures, pixels, channels, channels of a tile. Raises ValueError for other sizes than ours."""
    batch, channels, height, width = pixels.shape
    block = 64 if channels % 64 == 0 else 32
    if channels % block or height * width % _TILE:
        raise ValueError(f"{channels} channels of {width} x {height} pixels do not fill tiles of {_TILE} pixels")
    return pixels.contiguous(memory_format=torch.channels_last), (batch, height * width, channels, block)


@triton.jit
def _places(first, block, picture, area, channels, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Where the TILE pixels from `first` on lie, BLOCK channels of them."""
    rows = picture * area + first + tl.arange(0, TILE)
    return rows[:, None] * channels + (block * BLOCK + tl.arange(0, BLOCK))[None, :]


@triton.jit
def _moments(pixels, means, squares, area, channels, SIZE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Of every channel in one part of a picture, of SIZE pixels: the mean, and the sum of squared distances from it.

    Sums are taken of distances from the first tile's mean, because E[x^2] - E[x]^2 loses all digits where numbers are almost equal.
    """
    part, block, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = part * SIZE
    values = tl.load(pixels + _places(first, block, picture, area, channels, TILE, BLOCK)).to(tl.float32)
    near = tl.sum(values, 0) / TILE
    totals = values - near[None, :]
    squared = totals * totals
    for at in range(TILE, SIZE, TILE):
        values = tl.load(pixels + _places(first + at, block, picture, area, channels, TILE, BLOCK)).to(tl.float32)
        distances = values - near[None, :]
        totals += distances
        squared += distances * distances
    total = tl.sum(totals, 0)
    places = (picture * tl.num_programs(0) + part) * channels + block * BLOCK + tl.arange(0, BLOCK)
    tl.store(means + places, near + total / SIZE)
    tl.store(squares + places, tl.sum(squared, 0) - total * total / SIZE)


@triton.jit
def _scale(
    means,
    squares,
    weights,
    biases,
    more,
    scale,
    offset,
    size,
    channels,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    PARTS: tl.constexpr,
    BIASED: tl.constexpr,
):
    """Joins the moments of one group's channels in all parts of a picture (Chan et al. 1983): scale and offset of every channel."""
    group, picture = tl.program_id(0), tl.program_id(1)
    inside = tl.arange(0, PADDED) < SIZE
    columns = group * SIZE + tl.arange(0, PADDED)
    places = (picture * PARTS + tl.arange(0, PARTS))[:, None] * channels + columns[None, :]
    mean = tl.load(means + places, mask=inside[None, :], other=0.0)
    square = tl.load(squares + places, mask=inside[None, :], other=0.0)
    bias = tl.zeros([PADDED], tl.float32)
    if BIASED:
        bias = tl.load(more + columns, mask=inside, other=0.0).to(tl.float32)
    mean = tl.where(inside[None, :], mean + bias[None, :], 0.0)
    middle = tl.sum(tl.sum(mean, 1), 0) / (PARTS * SIZE)
    away = tl.where(inside[None, :], mean - middle, 0.0)
    spread = tl.sum(tl.sum(square + away * away * size, 1), 0) / (PARTS * SIZE * size)
    factor = tl.load(weights + columns, mask=inside, other=0.0).to(tl.float32) / tl.sqrt(spread + eps)
    shift = tl.load(biases + columns, mask=inside, other=0.0).to(tl.float32) + (bias - middle) * factor
    tl.store(scale + picture * channels + columns, factor, mask=inside)
    tl.store(offset + picture * channels + columns, shift, mask=inside)


@triton.jit
def _apply(pixels, scale, offset, normal, area, channels, TILE: tl.constexpr, BLOCK: tl.constexpr, ACTIVATE: tl.constexpr):
    """Pixels times scale plus offset, through SiLU where asked for."""
    block, picture = tl.program_id(1), tl.program_id(2)
    places = _places(tl.program_id(0) * TILE, block, picture, area, channels, TILE, BLOCK)
    columns = picture * channels + block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(pixels + places).to(tl.float32)
    values = values * tl.load(scale + columns)[None, :] + tl.load(offset + columns)[None, :]
    if ACTIVATE:
        values = values * tl.sigmoid(values)
    tl.store(normal + places, values.to(normal.dtype.element_ty))


@triton.jit
def _add(pixels, others, bias, area, channels, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """pixels += others + bias"""
    block, picture = tl.program_id(1), tl.program_id(2)
    places = _places(tl.program_id(0) * TILE, block, picture, area, channels, TILE, BLOCK)
    added = tl.load(bias + block * BLOCK + tl.arange(0, BLOCK)).to(tl.float32)
    values = tl.load(pixels + places).to(tl.float32) + tl.load(others + places).to(tl.float32) + added[None, :]
    tl.store(pixels + places, values.to(pixels.dtype.element_ty))
