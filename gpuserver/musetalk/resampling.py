"""Resizes 8-bit pictures exactly as Pillow does, with numpy: the masks of an avatar then equal those of the official preparation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_FRACTION_BITS = 22  # of a weight: 32 bits less 8 of the pixel and 2 of reserve (Pillow, Resample.c)


def resized(picture: NDArray[np.uint8], width: int, height: int, filter_name: Literal["bilinear", "bicubic"]) -> NDArray[np.uint8]:
    """The picture uint8 [h, w] or [h, w, channels] at another size. Shrinking averages over all pixels, as Pillow's filters do.

    Two passes, rows first, each rounded to 8 bits; weights are integers of 22 fractional bits.
    """
    weigh, reach = _FILTERS[filter_name]
    across = picture if picture.shape[1] == width else _pass(picture.swapaxes(0, 1), width, weigh, reach).swapaxes(0, 1)
    return np.ascontiguousarray(across if across.shape[0] == height else _pass(across, height, weigh, reach))


def _pass(picture: NDArray[np.uint8], size: int, weigh: Callable[[float], float], reach: float) -> NDArray[np.uint8]:
    """Resize the first axis. Every product and sum is an integer below 2^53, so that float64 computes it exactly."""
    flat = picture.reshape(picture.shape[0], -1).astype(np.float64)
    sums = (_weights(picture.shape[0], size, weigh, reach) @ flat).astype(np.int64)
    rounded = (sums + (1 << _FRACTION_BITS - 1)) >> _FRACTION_BITS
    return np.asarray(np.clip(rounded, 0, 255).reshape(size, *picture.shape[1:]), np.uint8)


def _weights(source: int, target: int, weigh: Callable[[float], float], reach: float) -> NDArray[np.float64]:
    """[target, source]: how much of every source pixel is in a target pixel, times 2^22, rounded half away from zero."""
    scale = source / target
    wide = max(scale, 1.0)
    weights = np.zeros((target, source))
    for index in range(target):
        centre = (index + 0.5) * scale
        first = max(0, int(centre - reach * wide + 0.5))
        last = min(source, int(centre + reach * wide + 0.5))
        row = np.array([weigh((place + 0.5 - centre) / wide) for place in range(first, last)])
        fixed = row / row.sum() * (1 << _FRACTION_BITS)
        weights[index, first:last] = np.trunc(fixed + np.copysign(0.5, fixed))
    return weights


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    """The cubic convolution kernel with a = -0.5 (Keys 1981)."""
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


_FILTERS: dict[str, tuple[Callable[[float], float], float]] = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}
