"""The painted inside of one mouth, laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gpuserver.domain import AvatarFrame, Box, Bytes2D, Floats
from gpuserver.musetalk.warp.mouth_light import planes


@dataclass(frozen=True, slots=True, eq=False)
class OwnTeeth:
    """What is shown of the source's own teeth, float32 [h, w]. weight: 0..1; right, down: where from, in pixels."""

    weight: Floats
    right: Floats
    down: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """float32 [h, w], chroma [2, h, w], over a box of the picture in squares of one or more pixels. alpha: 0..1, how much of it is seen."""

    box: Box
    luma: Floats
    chroma: Floats
    alpha: Floats
    own_teeth: OwnTeeth | None

    def lay_over(self, crop: tuple[Bytes2D, Bytes2D, Bytes2D], crop_box: Box, source: AvatarFrame) -> None:
        """Blend into the three planes of a crop of the source's picture, in place."""
        y, *chroma = planes(source)
        self._lay(crop[:1], crop_box, [y], self.luma[None], 1)
        self._lay(crop[1:], crop_box, chroma, self.chroma, 2)

    def _lay(self, crop: Sequence[Bytes2D], crop_box: Box, source: Sequence[Bytes2D], colors: Floats, scale: int) -> None:
        """Planes of one resolution. scale: pixels of the picture per pixel of them."""
        box, own = self.box, self.own_teeth
        size = (box.width // scale, box.height // scale)
        top, left = (box.top - crop_box.top) // scale, (box.left - crop_box.left) // scale
        alpha = _resized(self.alpha, size)
        if own is not None:
            weight = _resized(own.weight, size)
            x = _resized(own.right, size) / scale + np.arange(box.left // scale, box.right // scale, dtype=np.float32)
            y = _resized(own.down, size) / scale + np.arange(box.top // scale, box.bottom // scale, dtype=np.float32)[:, None]
        for plane, original, color in zip(crop, source, colors, strict=True):
            part = plane[top : top + size[1], left : left + size[0]]
            shown = _resized(color, size)
            if own is not None:
                teeth = cv2.remap(original, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                shown = shown + weight * (teeth - shown)
            part[...] = (part + alpha * (shown - part) + np.float32(0.5)).clip(0, 255)


def _resized(field: Floats, size: tuple[int, int]) -> Floats:
    """The field itself where it has the size."""
    if field.shape == size[::-1]:
        return field
    smaller = size[0] < field.shape[1]
    return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.float32)
