"""Puts a rendered mouth into a copy of the avatar's picture, in I420, without touching anything outside the mouth's box."""

from __future__ import annotations

import numpy as np

from gpuserver.domain import AvatarFrame, Box, Bytes2D, FaceCrop

FADE_FRAMES = 3  # the mouth cross-fades between the source's own and the drawn one over 120 ms


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
    weight = round(min(strength, 1.0) * 256)
    original = None if drawn_on is None or drawn_on is frame else planes(drawn_on.picture)
    for index, (target, patch) in enumerate(zip(planes(picture), (crop.y, crop.u, crop.v), strict=True)):
        window = _window(crop.box, 1 if index == 0 else 2)
        source = target[window]
        if original is not None:
            change = patch.astype(np.int32) - original[index][window]
            source[...] = np.clip(source + ((change * weight + 128) >> 8), 0, 255)
        elif weight == 256:
            source[...] = patch
        else:
            mixed = patch.astype(np.uint16) * np.uint16(weight) + source.astype(np.uint16) * np.uint16(256 - weight)
            source[...] = (mixed + np.uint16(128)) >> 8
    return picture


def _window(box: Box, step: int) -> tuple[slice, slice]:
    """The rows and columns of the box in a plane that has every `step`-th pixel."""
    return slice(box.top // step, box.bottom // step), slice(box.left // step, box.right // step)


class MouthFade:
    """Cross-fades between the source's mouth and the drawn one, one call per frame shown."""

    def __init__(self) -> None:
        self._level = 0  # 0 is the source's mouth, FADE_FRAMES the drawn one
        self._last: tuple[AvatarFrame, FaceCrop] | None = None

    def talking(self, frame: AvatarFrame, crop: FaceCrop | None, drawn_on: AvatarFrame | None = None) -> Bytes2D:
        """The next picture while there is speech; without a crop the last one fades out. drawn_on: as in compose."""
        if crop is None:
            return self.idle(frame)
        drawn_on = drawn_on or frame
        self._level = min(self._level + 1, FADE_FRAMES)
        self._last = (drawn_on, crop)
        return compose(frame, crop, self._level / FADE_FRAMES, drawn_on)

    def idle(self, frame: AvatarFrame) -> Bytes2D:
        """The next picture without speech: after FADE_FRAMES calls the frame's own picture, the very same object."""
        self._level = max(self._level - 1, 0)
        if self._level == 0 or self._last is None:
            self._last = None
            return frame.picture
        drawn_on, crop = self._last
        return compose(frame, crop, self._level / FADE_FRAMES, drawn_on)
