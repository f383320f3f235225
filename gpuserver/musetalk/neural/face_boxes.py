"""The box of a face that MuseTalk encodes: the official formula on 68 points, and the same from our 468-point mesh, steady over time.

The formula: MuseTalk's preprocessing.py. The middle of the box is a point of the nose's ridge, so that its lower half, which is
drawn anew, is the face from there to the chin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Floats

FACE_SIDE = 256  # pixels of an encoded face
NO_FACE = Box(0, 0, 0, 0)
EXTRA_MARGIN = 10  # pixels below the chin in V1.5, for a jaw that opens

# The 68 points of iBUG 300-W among those of the mesh, each the nearest one: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47,
# lips 48-67. What counts is 29, the outermost ones, and the lowest one. iBUG divides the ridge from the eyes' height (27) to the tip
# (30) in thirds. Between the mesh's 168 (0, a little above the eyes) and 4 (1, the tip) 197 lies at 0.40 and 5 at 0.76, where the
# thirds are; 195, the other candidate for 29, lies at 0.58 (measured on the sample clips).
# fmt: off
IBUG_68 = (
    127, 234, 132, 58, 136, 149, 176, 148, 152, 377, 400, 378, 365, 288, 361, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
RIDGE = 29  # of the 68 points

_PLACE_FRAMES, _SIZE_FRAMES = 1.0, 4.0  # standard deviation of the smoothing: a head moves fast, its size changes slowly
_REACH = 3  # standard deviations


def face_box(points: NDArray[np.floating], detected: Box | None, shift: int = 0) -> Box:
    """The official box of one frame. points: [68, 2], pixels, truncated to whole ones as upstream does.

    detected: what a face detector found: the box where the points give none (empty, or left of the picture); None: no face, the
    box is NO_FACE. shift: pixels that the box's middle is moved down (V1.0's bbox_shift; V1.5 always has 0).
    """
    if detected is None:
        return NO_FACE
    left, top, right, bottom = (int(edge) for edge in _edges(points.astype(np.int32).astype(np.float64), shift))
    if right <= left or bottom <= top or left < 0:
        return detected
    return Box(left, top, right, bottom)


def with_margin(box: Box, margin: int, height: int) -> Box:
    """The box with `margin` pixels more below, inside a picture of `height`."""
    return Box(box.left, box.top, box.right, min(box.bottom + margin, height))


def mesh_boxes(landmarks: Floats, faces: list[Box], width: int, height: int, *, shift: int = 0, margin: int = EXTRA_MARGIN) -> list[Box]:
    """The boxes of frames that follow each other, from our own mesh, without jitter.

    landmarks: [n, 468, 2]. faces: the mesh's own boxes, used where the formula gives none. The boxes lie inside the picture. Upstream
    takes every frame by itself and whole pixels; here place and size are smoothed over time first, neither late nor early.
    """
    edges = np.array([_edges(points.astype(np.float64), shift) for points in landmarks[:, list(IBUG_68)]])
    steady = np.rint(smooth_edges(edges)).astype(int)
    limits = np.array([width, height, width, height])
    boxes = []
    for corners, face in zip(np.clip(steady, 0, limits).tolist(), faces, strict=True):
        box = Box(*corners)
        boxes.append(with_margin(box if box.width > 0 and box.height > 0 else face, margin, height))
    return boxes


def smooth_edges(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes [n, 4] (left, top, right, bottom) smoothed over time: their middles a little, their sizes more.

    The loop plays forth and back, so that beyond its ends it is mirrored.
    """
    middles, sizes = (edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]
    place, size = _smooth(middles, _PLACE_FRAMES), _smooth(sizes, _SIZE_FRAMES)
    return np.concatenate([place - size / 2, place + size / 2], axis=1)


def _edges(points: NDArray[np.float64], shift: int) -> tuple[float, float, float, float]:
    shifted = points.copy()
    shifted[RIDGE, 1] += shift  # it is one of the points whose lowest is the bottom
    middle, bottom = shifted[RIDGE, 1], shifted[:, 1].max()
    return shifted[:, 0].min(), max(0.0, 2 * middle - bottom), shifted[:, 0].max(), bottom


def _smooth(values: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """A Gaussian mean over time of [n, k]."""
    reach = min(len(values) - 1, round(_REACH * spread))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * spread**2))
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="reflect") if reach else values
    shifted = [weight * padded[reach + offset : reach + offset + len(values)] for offset, weight in zip(offsets, weights, strict=True)]
    return np.asarray(np.sum(shifted, axis=0) / weights.sum())
