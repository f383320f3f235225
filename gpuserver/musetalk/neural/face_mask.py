"""Which part of a drawn face shows: the soft mask of the jaw, from BiSeNet's class map or from one that is drawn from the landmarks.

The drawn map stands in where BiSeNet's weights are absent; the same rules (blending.parsing_mask) make the mask of either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Bytes2D, Floats
from gpuserver.musetalk.neural.blending import PARSING_SIDE, MaskMode, crop_box, fitted_mask, intersection, parsing_mask, soft_mask, window
from gpuserver.musetalk.vision import landmarks as points

# Classes of CelebAMask-HQ, as the official checkpoint numbers them.
BACKGROUND, SKIN, EYE, NOSE, MOUTH, LIPS = 0, 1, 4, 10, 11, 12

# Around the nose, from the bridge down the left side, along the base, and up the right side.
_NOSE = (168, 122, 196, 236, 198, 209, 49, 129, 64, 98, 97, 2, 326, 327, 294, 358, 279, 429, 420, 456, 419, 351)
_NOSE_BORDER = 12  # pixels of the map: the mask's blur shall leave the nose alone
_EYE_BORDER = 16  # lids and lashes
_FRACTION_BITS = 4  # of a polygon's corners
_FADED_PART = 0.04  # of the face box's width


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


def visible_mask(classes: Bytes2D, face: Box, mode: MaskMode, width: int, height: int) -> tuple[Bytes2D, Box] | None:
    """How opaque the drawn face is, and where: only the part of a picture of this size that shows any of it, with even coordinates.

    classes: [512, 512], the face in its crop box. Inside the face box the mask fades to nothing, so that no edge of the box can be
    seen; upstream cuts it off there. None where nothing shows.
    """
    whole = soft_mask(fitted_mask(parsing_mask(classes, mode), face), face)
    picture = Box(0, 0, width, height)
    inside = intersection(face, picture)
    faded = np.rint(whole[window(inside, crop_box(face))] * _fade(inside, picture)).astype(np.uint8)
    rows, columns = np.flatnonzero(faded.any(axis=1)), np.flatnonzero(faded.any(axis=0))
    if not len(rows):
        return None
    top, bottom = (inside.top + int(rows[0])) & ~1, (inside.top + int(rows[-1]) + 2) & ~1
    left, right = (inside.left + int(columns[0])) & ~1, (inside.left + int(columns[-1]) + 2) & ~1
    shown = Box(left, top, right, bottom)
    mask = np.zeros((shown.height, shown.width), np.uint8)
    common = intersection(shown, inside)
    mask[window(common, shown)] = faded[window(common, inside)]
    return mask, shown


def _fade(inside: Box, picture: Box) -> NDArray[np.float32]:
    """[h, w], 0..1: nothing at the box's rim, all from a few pixels inside on; a rim that is the picture's own does not count."""
    reach = max(2, round(_FADED_PART * inside.width))

    def ramp(length: int, *, from_start: bool, to_end: bool) -> NDArray[np.float32]:
        place = np.arange(length, dtype=np.float32)
        start = place if from_start else np.full_like(place, reach)
        end = place[::-1] if to_end else np.full_like(place, reach)
        return np.asarray(np.clip(np.minimum(start, end) / reach, 0, 1), np.float32)

    across = ramp(inside.width, from_start=inside.left > picture.left, to_end=inside.right < picture.right)
    down = ramp(inside.height, from_start=inside.top > picture.top, to_end=inside.bottom < picture.bottom)
    return np.asarray(down[:, None] * across, np.float32)
