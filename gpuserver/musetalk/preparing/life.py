"""Gives a still picture a gentle life: a loop in which the head sways, the chest breathes and the eyes blink."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Bytes2D, Floats
from gpuserver.musetalk.preparing.eyelids import Eyelids
from gpuserver.musetalk.preparing.still import to_i420
from gpuserver.musetalk.preparing.sway import Sway

FRAMES = 176  # 7.04 s; forth and back it repeats after 14

# How far the eyes are closed, frame by frame: 200 ms, a little faster down than up (Schiffman 2001: 100-400 ms, closing first).
_BLINK = (0.45, 1.0, 0.95, 0.55, 0.2)
# The first frames of the blinks: 2.0 to 3.2 s apart, also across the ends, where the loop turns: nobody blinks in time.
_BLINKS = (38, 89, 153)

Rgb = NDArray[np.uint8]


def closures(frames: int = FRAMES) -> list[float]:
    """How far the eyes are closed in every frame of the loop, 0..1."""
    parts = [0.0] * frames
    for start in _BLINKS:
        parts[start : start + len(_BLINK)] = _BLINK
    return parts


def living(rgb: Rgb, landmarks: Floats, person: Floats) -> Iterator[tuple[Bytes2D, Floats]]:
    """The loop's pictures (I420) with the points of the face in each of them [468, 2].

    rgb: [h, w, 3], even sides; landmarks: its face; person: the mask of PersonFinder.
    """
    height, width = rgb.shape[:2]
    sway, eyelids = Sway(landmarks, person, width, height), Eyelids(rgb, landmarks)
    blinking = {part: to_i420(eyelids.closed(part)) for part in {0.0, *_BLINK}}
    for index, part in enumerate(closures()):
        displacement = sway.displacement(index / (FRAMES - 1))
        yield sway.picture(blinking[part], displacement), sway.landmarks(displacement)
