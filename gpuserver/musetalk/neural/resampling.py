"""Resizes 8-bit pictures exactly as Pillow does, with numpy: the masks of an avatar then equal those of the official preparation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Weigh = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # distances in pixels of the wider of both grids -> weights

_FRACTION_BITS = 22  # of a weight: 32 bits less 8 of the pixel and 2 of reserve (Pillow, Resample.c)


def resized(picture: NDArray[np.uint8], width: int, height: int, filter_name: Literal["bilinear", "bicubic"]) -> NDArray[np.uint8]:
    """The picture uint8 [h, w] or [h, w, channels] at another size. Shrinking averages over all pixels, as Pillow's filters do.

    Two passes, rows first, each rounded to 8 bits; weights are integers of 22 fractional bits.
    """
    weigh, reach = _FILTERS[filter_name]
    across = picture if picture.shape[1] == width else _pass(picture.swapaxes(0, 1), width, weigh, reach).swapaxes(0, 1)
    return np.ascontiguousarray(across if across.shape[0] == height else _pass(across, height, weigh, reach))


def _pass(picture: NDArray[np.uint8], size: int, weigh: Weigh, reach: float) -> NDArray[np.uint8]:
    """Resize the first axis. Every product and sum is an integer below 2^53, so that float64 computes it exactly."""
    flat = picture.reshape(picture.shape[0], -1).astype(np.float64)
    sums = (_weights(picture.shape[0], size, weigh, reach) @ flat).astype(np.int64)
    rounded = (sums + (1 << _FRACTION_BITS - 1)) >> _FRACTION_BITS
    return np.asarray(np.clip(rounded, 0, 255).reshape(size, *picture.shape[1:]), np.uint8)


def _weights(source: int, target: int, weigh: Weigh, reach: float) -> NDArray[np.float64]:
    """[target, source]: how much of every source pixel is in a target pixel, times 2^22, rounded half away from zero."""
    scale = source / target
    wide = max(scale, 1.0)
    centres = ((np.arange(target) + 0.5) * scale)[:, None]
    places = np.arange(source)
    first, last = np.trunc(centres - reach * wide + 0.5), np.trunc(centres + reach * wide + 0.5)
    weights = np.where((places >= first) & (places < last), weigh((places + 0.5 - centres) / wide), 0.0)
    fixed = weights / weights.sum(axis=1, keepdims=True) * (1 << _FRACTION_BITS)
    return np.asarray(np.trunc(fixed + np.copysign(0.5, fixed)))


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel with a = -0.5 (Keys 1981)."""
    a, x = -0.5, np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS: dict[str, tuple[Weigh, float]] = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}
