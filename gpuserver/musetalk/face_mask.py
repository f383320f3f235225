"""The class map that BiSeNet would make of a face, drawn from the mesh's landmarks: skin, nose, eyes and mouth.

It stands in where BiSeNet's weights are absent, so that the same rules (blending.parsing_mask) make the mask of either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Bytes2D, Floats
from gpuserver.musetalk import landmarks as points
from gpuserver.musetalk.blending import PARSING_SIDE, crop_box

# Classes of CelebAMask-HQ, as the official checkpoint numbers them.
BACKGROUND, SKIN, EYE, NOSE, MOUTH, LIPS = 0, 1, 4, 10, 11, 12

# Around the nose, from the bridge down the left side, along the base, and up the right side.
_NOSE = (168, 122, 196, 236, 198, 209, 49, 129, 64, 98, 97, 2, 326, 327, 294, 358, 279, 429, 420, 456, 419, 351)
_NOSE_BORDER = 12  # pixels of the map: the mask's blur shall leave the nose alone
_EYE_BORDER = 16  # lids and lashes
_FRACTION_BITS = 4  # of a polygon's corners


def landmark_classes(landmarks: Floats, face: Box) -> Bytes2D:
    """uint8 [512, 512]: the classes in the crop box of the face box, as blending.parsing_mask() takes them. landmarks: [468, 2], pixels."""
    square = crop_box(face)
    scale = PARSING_SIDE / square.width
    placed = (landmarks.astype(np.float64) - (square.left, square.top) + 0.5) * scale - 0.5
    classes = np.full((PARSING_SIDE, PARSING_SIDE), BACKGROUND, np.uint8)
    _fill(classes, placed, points.FACE_OVAL, SKIN)
    for eye in (points.LEFT_EYE, points.RIGHT_EYE):
        _fill(classes, placed, eye, EYE, border=_EYE_BORDER)
    _fill(classes, placed, _NOSE, NOSE, border=_NOSE_BORDER)
    _fill(classes, placed, points.OUTER_LIPS, LIPS)
    _fill(classes, placed, points.INNER_LIPS, MOUTH)
    return classes


def _fill(classes: Bytes2D, placed: NDArray[np.float64], outline: tuple[int, ...], kind: int, *, border: int = 0) -> None:
    """Fill a polygon and a border around it."""
    import cv2

    corners = np.rint(placed[list(outline)] * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(classes, [corners], kind, shift=_FRACTION_BITS)
    if border:
        cv2.polylines(classes, [corners], isClosed=True, color=kind, thickness=2 * border, shift=_FRACTION_BITS)
