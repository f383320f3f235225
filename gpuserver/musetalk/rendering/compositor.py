"""Puts a rendered mouth into a copy of the avatar's picture, in I420, without touching anything outside the mouth's box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gpuserver.domain import AvatarFrame, Bytes2D, FaceCrop

FADE_FRAMES = 4  # 160 ms: the mouth cross-fades between the source's own and the drawn one, and between those of two engines


def planes(picture: Bytes2D) -> tuple[Bytes2D, Bytes2D, Bytes2D]:
    """Views of the Y [h, w], U and V [h / 2, w / 2] planes of an I420 picture [h * 3 / 2, w]."""
    rows, width = picture.shape
    height = rows * 2 // 3
    flat = picture.reshape(-1)
    luma, chroma = height * width, height * width // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma :].reshape(half),
    )


def compose(frame: AvatarFrame, crop: FaceCrop | None, strength: float = 1.0, drawn_on: AvatarFrame | None = None) -> Bytes2D:
    """The frame's picture with the crop in it, as a new I420 picture; the frame's own picture where there is nothing to paste.

    strength: 0 is the source's mouth, 1 the crop's; in between they are mixed inside the crop's box.
    drawn_on: the frame that the crop was rendered for, if it is another one. The crop's difference to that frame is then
    added to this one: zero at the box's rim, so that no seam appears although the head has moved a little.
    """
    if crop is None or strength <= 0:
        return frame.picture
    picture = frame.picture.copy()
    if drawn_on is None or drawn_on is frame:
        _paste(picture, crop, _weight(strength))
    else:
        _add_change(picture, crop, drawn_on, _weight(strength))
    return picture


def _paste(picture: Bytes2D, crop: FaceCrop, weight: int) -> None:
    """Mix the crop into the picture; a weight of 256 is the crop alone."""
    for target, patch, _ in _patches(picture, crop):
        if weight == 256:
            target[...] = patch
        else:
            mixed = patch.astype(np.uint16) * np.uint16(weight) + target.astype(np.uint16) * np.uint16(256 - weight)
            target[...] = (mixed + np.uint16(128)) >> 8


def _add_change(picture: Bytes2D, crop: FaceCrop, drawn_on: AvatarFrame, weight: int) -> None:
    """Add what the crop changes in the frame it was rendered for; a weight of 256 is all of it."""
    originals = planes(drawn_on.picture)
    for (target, patch, window), original in zip(_patches(picture, crop), originals, strict=True):
        change = patch.astype(np.int32) - original[window]
        target[...] = np.clip(target + ((change * weight + 128) >> 8), 0, 255)


def _patches(picture: Bytes2D, crop: FaceCrop) -> Iterator[tuple[Bytes2D, Bytes2D, tuple[slice, slice]]]:
    """Per plane: the part of the picture that the crop covers, the crop's own pixels, and the rows and columns of the part."""
    for plane, patch, step in zip(planes(picture), (crop.y, crop.u, crop.v), (1, 2, 2), strict=True):
        window = slice(crop.box.top // step, crop.box.bottom // step), slice(crop.box.left // step, crop.box.right // step)
        yield plane[window], patch, window


def _weight(strength: float) -> int:
    return round(min(strength, 1.0) * 256)


@dataclass(frozen=True, slots=True, eq=False)
class _Mouth:
    """A mouth that is shown. level: FADE_FRAMES is the mouth alone, 0 is nothing of it."""

    crop: FaceCrop
    drawn_on: AvatarFrame
    level: int

    def stronger(self, by: int) -> _Mouth | None:
        """The same mouth one step on; None when it has gone."""
        level = min(self.level + by, FADE_FRAMES)
        return replace(self, level=level) if level > 0 else None


class MouthFade:
    """Cross-fades between the source's mouth and the drawn one, and between the mouths of two engines; one call per frame shown."""

    def __init__(self) -> None:
        self._mouth: _Mouth | None = None
        self._leaving: _Mouth | None = None  # the engine's that drew before

    def talking(self, frame: AvatarFrame, crop: FaceCrop | None, drawn_on: AvatarFrame | None = None) -> Bytes2D:
        """The next picture while there is speech; without a crop the last one fades out. drawn_on: as in compose."""
        if crop is None:
            return self.idle(frame)
        if self._mouth is not None and self._mouth.crop.engine != crop.engine:
            self._leaving, self._mouth = self._mouth, None
        level = 0 if self._mouth is None else self._mouth.level
        self._mouth = _Mouth(crop, crop.drawn_on or drawn_on or frame, level).stronger(+1)
        return self._picture(frame)

    def idle(self, frame: AvatarFrame) -> Bytes2D:
        """The next picture without speech: after FADE_FRAMES calls the frame's own picture, the very same object."""
        if self._mouth is not None:
            self._mouth = self._mouth.stronger(-1)
        return self._picture(frame)

    def _picture(self, frame: AvatarFrame) -> Bytes2D:
        mouth, leaving = self._mouth, self._leaving
        if leaving is not None:
            self._leaving = leaving = leaving.stronger(-1)
        picture = frame.picture if mouth is None else compose(frame, mouth.crop, mouth.level / FADE_FRAMES, mouth.drawn_on)
        if leaving is not None:
            picture = picture.copy() if picture is frame.picture else picture
            _add_change(picture, leaving.crop, leaving.drawn_on, _weight(leaving.level / FADE_FRAMES))
        return picture
