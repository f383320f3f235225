"""Closes the eyes of a picture: the upper lid comes down over the eye, covered with the skin from between the eye and the brow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats

# From the picture's left corner of an eye to its right one: upper lid, lower lid; then the lower edge of the brow.
_LEFT = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133), (46, 53, 52, 65, 55))
_RIGHT = ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263), (285, 295, 282, 283, 276))

MIN_OPEN = 0.12  # height / width of an eye; below that it is closed already
_BELOW = 0.1  # of the eye's height: the closed lid ends a little below the lower lid's line, so that no white is left
_LOWER_RISE = 0.16  # of the eye's height: the lower lid comes up a little to meet the upper one
_SHORTEST_SKIN = 0.7  # of the way that the lid comes down; with less skin above it to stretch, the picture would fold (limit: 0.5)
_SHADE = 0.10  # a closed lid turns away from the light of above

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Eye:
    """An eye in its own coordinates: `along` from the left corner to the right one, `down` at a right angle to it; pixels."""

    origin: Floats
    along: Floats
    down: Floats
    width: float
    upper: NDArray[np.float64]  # coefficients of `down` over `along`
    lower: NDArray[np.float64]
    brow: float  # `down` of the brow's lower edge above the middle of the eye; negative

    @property
    def height(self) -> float:
        middle = self.width / 2
        return float(np.polyval(self.lower, middle) - np.polyval(self.upper, middle))


class Eyelids:
    """The eyes of one picture, found once and closed as often as wanted."""

    def __init__(self, rgb: Rgb, landmarks: Floats):
        """rgb: [h, w, 3]; landmarks: [468, 2], pixels of it."""
        self._rgb = rgb
        eyes = (_eye(landmarks, *indices) for indices in (_LEFT, _RIGHT))
        self._eyes = [eye for eye in eyes if eye.height > MIN_OPEN * eye.width]

    def closed(self, part: float) -> Rgb:
        """The picture with its eyes closed by `part`: 0 leaves them as they are, 1 closes them. The same object for 0."""
        if part <= 0 or not self._eyes:
            return self._rgb
        picture = self._rgb.copy()
        for eye in self._eyes:
            _close(picture, self._rgb, eye, min(part, 1.0))
        return picture


def _eye(landmarks: Floats, upper: tuple[int, ...], lower: tuple[int, ...], brow: tuple[int, ...]) -> _Eye:
    left, right = landmarks[upper[0]], landmarks[upper[-1]]
    width = max(float(np.linalg.norm(right - left)), 1e-6)
    along = (right - left) / width
    down = np.array([-along[1], along[0]], np.float32)

    def curve(indices: tuple[int, ...]) -> NDArray[np.float64]:
        offsets = landmarks[list(indices)] - left
        return np.polyfit(offsets @ along, offsets @ down, 4)

    brow_down = (landmarks[list(brow)] - left) @ down
    return _Eye(left, along, down, width, curve(upper), curve(lower), float(np.sort(brow_down)[len(brow) // 2]))


def _close(picture: Rgb, source: Rgb, eye: _Eye, part: float) -> None:
    """Draw the eye of `source`, closed by `part`, into `picture`."""
    import cv2

    window = _window(eye, source.shape[1], source.shape[0])
    rows, columns = window
    y, x = np.mgrid[rows, columns].astype(np.float32)
    offset_x, offset_y = x - eye.origin[0], y - eye.origin[1]
    a = offset_x * eye.along[0] + offset_y * eye.along[1]
    b = offset_x * eye.down[0] + offset_y * eye.down[1]

    inside = np.clip(a, 0, eye.width)
    upper, lower = np.polyval(eye.upper, inside), np.polyval(eye.lower, inside)
    # Towards the corners both lids meet whatever the polynomials say.
    taper = np.clip(4 * np.minimum(a, eye.width - a) / eye.width, 0, 1)
    gap = np.maximum(lower - upper, 0) * (taper * (2 - taper))
    meet = lower - _LOWER_RISE * gap * part
    lid = upper + (meet + (_LOWER_RISE * part + _BELOW) * gap * part - upper) * part  # the edge of the upper lid now
    drop = np.maximum(lid - upper, 0) * (taper > 0)

    # The skin between brow and lid: rigid at the edge with its lashes, stretched above, at rest at the brow.
    skin = np.maximum(upper - eye.brow, drop * _SHORTEST_SKIN)
    above = np.clip((b - (upper - skin)) / (skin + drop), 0, 1)
    shift = drop * (above * above * (3 - 2 * above))
    from_x, from_y = ((at - shift * step).astype(np.float32) for at, step in zip((x, y), eye.down, strict=True))
    colour = cv2.remap(source, from_x, from_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    shade = 1 - _SHADE * part * np.clip(drop / max(eye.height, 1e-6), 0, 1) * above**2
    covered = np.clip(lid - b + 0.5, 0, 1) * (drop > 0)
    weight = covered[..., None]
    mixed = colour * shade[..., None] * weight + source[window] * (1 - weight)
    picture[window] = np.where(weight > 0, np.clip(np.rint(mixed), 0, 255), picture[window]).astype(np.uint8)


def _window(eye: _Eye, width: int, height: int) -> tuple[slice, slice]:
    """The rows and columns that closing the eye can change, inside the picture."""
    middle = eye.origin + eye.along * (eye.width / 2)
    reach = eye.width / 2 + max(-eye.brow, 2 * eye.height) * 1.8 + 2
    left, top = np.maximum(np.floor(middle - reach), 0).astype(int)
    right, bottom = np.ceil(middle + reach).astype(int)
    return slice(top, min(bottom, height)), slice(left, min(right, width))
