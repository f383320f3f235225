"""Where a drawn face shows in the picture, and how it is mixed in: MuseTalk's crop box, its masks and its 8-bit blend.

Everything equals the official code bit by bit where both are given the same 19-class map of the face (docs/avatar-format.md).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Bytes2D
from gpuserver.musetalk.neural.resampling import resized

MaskMode = Literal["jaw", "raw", "neck"]

PARSING_SIDE = 512  # pixels of a class map, as BiSeNet makes it
CHEEK_WIDTH = 90  # of a class map: columns at either side of its middle in which the jaw mask keeps its full width
BLUR_PREPARED, BLUR_OFFLINE = 0.1, 0.05  # blur kernel / side of the crop box: of a stored mask, of upstream's offline script

_EXPAND = 1.5  # side of the crop box / larger side of the face box
_UPPER_PART = 0.5  # of the crop box: nothing is drawn above
_SKIN, _NOSE, _NECK = 1, 10, 14  # classes of CelebAMask-HQ
_MOUTH = (11, 12, 13)  # inside, upper lip, lower lip


def crop_box(face: Box) -> Box:
    """The square around the face box that the mask covers; it may leave the picture."""
    x, y = (face.left + face.right) // 2, (face.top + face.bottom) // 2
    half = int(max(face.width, face.height) // 2 * _EXPAND)
    return Box(x - half, y - half, x + half, y + half)


def crop(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The part of the picture [h, w, …] in the box; black where the box leaves the picture."""
    cut = np.zeros((box.height, box.width, *picture.shape[2:]), np.uint8)
    inside = intersection(box, Box(0, 0, picture.shape[1], picture.shape[0]))
    cut[window(inside, box)] = picture[window(inside)]
    return cut


def intersection(one: Box, other: Box) -> Box:
    """The common part of two boxes; empty (width or height 0) where there is none."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    return Box(left, top, max(left, min(one.right, other.right)), max(top, min(one.bottom, other.bottom)))


def window(box: Box, within: Box | None = None) -> tuple[slice, slice]:
    """Rows and columns of the box in an array whose first pixel is the top left one of `within`, or of the picture."""
    left, top = (0, 0) if within is None else (within.left, within.top)
    return slice(box.top - top, box.bottom - top), slice(box.left - left, box.right - left)


# ---------------------------------------------------------------- masks


def parsing_mask(classes: Bytes2D, mode: MaskMode, cheek_width: int = CHEEK_WIDTH) -> Bytes2D:
    """What of a class map [512, 512] is drawn: 0 or 255. raw (V1.0): skin and mouth; neck: the neck as well; jaw (V1.5):
    skin that is grown and then narrowed at the cheeks, and the mouth, without the nose."""
    if mode == "jaw":
        shown = (_jaw(classes, cheek_width) > 0) & (classes != _NOSE) | np.isin(classes, _MOUTH)
    else:
        shown = np.isin(classes, (_SKIN, *_MOUTH, *((_NECK,) if mode == "neck" else ())))
    return np.where(shown, np.uint8(255), np.uint8(0))


def _jaw(classes: Bytes2D, cheek_width: int) -> Bytes2D:
    import cv2

    grown = cv2.dilate(np.where(classes == _SKIN, np.uint8(255), np.uint8(0)), jaw_kernel())
    narrow = cv2.erode(grown, cheek_kernel(), iterations=2)
    return np.where(cheek_columns(cheek_width), np.asarray(narrow, np.uint8), np.asarray(grown, np.uint8))


def jaw_kernel() -> Bytes2D:
    """[33, 33], 0 or 1: a cone that opens downwards from row 10 to row 20 (21 wide), then goes on straight."""
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        reach = min(row, 20) - 10
        kernel[row, 16 - reach : 17 + reach] = 1
    return kernel


def cheek_kernel() -> Bytes2D:
    """[3, 35], 0 or 1: an ellipse."""
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3)), np.uint8)


def cheek_columns(width: int = CHEEK_WIDTH) -> NDArray[np.bool_]:
    """[512]: the columns of a class map that are farther from its middle than `width`, both limits included."""
    columns, middle = np.arange(PARSING_SIDE), PARSING_SIDE // 2
    return np.asarray((columns <= middle - width) | (columns >= middle + width))


def fitted_mask(shown: Bytes2D, face: Box) -> Bytes2D:
    """A mask [512, 512] of what is drawn, brought to the size of the face's crop box, not yet softened."""
    side = crop_box(face).width
    return resized(shown, side, side, "bicubic")


def soft_mask(shown: Bytes2D, face: Box, blur: float = BLUR_PREPARED) -> Bytes2D:
    """How opaque the drawn face is over its crop box: uint8 [side, side], only the lower half of the face box, with a soft border.

    shown: uint8 [side, side], what may be drawn. blur: size of the blur's kernel / side.
    """
    import cv2

    box = crop_box(face)
    kept = np.zeros_like(shown)
    inside = window(face, box)
    kept[inside] = shown[inside]
    kept[: int(box.height * _UPPER_PART)] = 0
    kernel = int(blur * box.width // 2 * 2) + 1
    return np.asarray(cv2.GaussianBlur(kept, (kernel, kernel), 0), np.uint8)


# ---------------------------------------------------------------- blend


def mix(front: NDArray[np.uint8], back: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """front * mask / 255 + back * (255 - mask) / 255, rounded as Pillow's paste() does; arrays that broadcast."""
    opaque = mask.astype(np.uint16)
    total = front * opaque  # 16 bits hold every step: at most 255 * 255 + 128 + 254
    total += back * (255 - opaque)
    total += 128
    total += total >> 8
    return np.asarray(total >> 8, np.uint8)


def blend(picture: NDArray[np.uint8], face: NDArray[np.uint8], box: Box, mask: Bytes2D) -> NDArray[np.uint8]:
    """A copy of the picture [h, w, 3] with the drawn face [256, 256, 3] in its box.

    mask: uint8 [side, side] over crop_box(box), as soft_mask() makes it. Outside the face box nothing changes.
    """
    import cv2

    drawn = np.asarray(cv2.resize(face, (box.width, box.height), interpolation=cv2.INTER_LINEAR), np.uint8)
    seen = intersection(box, Box(0, 0, picture.shape[1], picture.shape[0]))
    opaque = mask[window(seen, crop_box(box))]
    blended = picture.copy()
    blended[window(seen)] = mix(drawn[window(seen, box)], picture[window(seen)], opaque[:, :, None])
    return blended
