"""The colours of a face in its own light, read from the I420 picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuserver.domain import AvatarFrame, Bytes2D
from gpuserver.musetalk.warp.mouth_geometry import Reals

BLACK = 16  # limited range luma
GREY = 128  # chroma without colour

_SKIN = (205, 425, 206, 426, 212, 432, 204, 424, 200)  # face mesh points beside and below the mouth
_LIPS = (84, 17, 314, 85, 16, 315, 180, 404)  # on the lower lip


@dataclass(frozen=True, slots=True)
class Color:
    """Of n faces, float32 [n, 1]: limited-range luma, and chroma around GREY."""

    y: Reals
    u: Reals
    v: Reals

    def scaled(self, brightness: float | Reals, saturation: float) -> Color:
        return Color(BLACK + brightness * (self.y - BLACK), GREY + saturation * (self.u - GREY), GREY + saturation * (self.v - GREY))


@dataclass(frozen=True, slots=True)
class FaceLight:
    """How bright and how red faces are around the mouth."""

    skin: Color
    lips: Color


def lights_together(lights: Sequence[FaceLight]) -> FaceLight:
    """The light of all these faces."""
    return FaceLight(_together([light.skin for light in lights]), _together([light.lips for light in lights]))


def _together(colors: Sequence[Color]) -> Color:
    return Color(*(np.concatenate(part) for part in zip(*((color.y, color.u, color.v) for color in colors), strict=True)))


def planes(frame: AvatarFrame) -> tuple[Bytes2D, Bytes2D, Bytes2D]:
    """Views of the three planes of the picture: [h, w], [h / 2, w / 2], [h / 2, w / 2]."""
    width = frame.picture.shape[1]
    height = frame.picture.shape[0] * 2 // 3
    flat, area = frame.picture.reshape(-1), width * height
    return (
        flat[:area].reshape(height, width),
        flat[area : area * 5 // 4].reshape(height // 2, width // 2),
        flat[area * 5 // 4 :].reshape(height // 2, width // 2),
    )


def measure_light(frame: AvatarFrame) -> FaceLight:
    """The face's light in one picture, n = 1."""
    return FaceLight(_median(frame, _SKIN), _median(frame, _LIPS))


def _median(frame: AvatarFrame, indices: tuple[int, ...]) -> Color:
    y, u, v = planes(frame)
    x, row = np.clip(frame.landmarks[list(indices)], 0, [y.shape[1] - 1, y.shape[0] - 1]).astype(int).T
    found = (np.median(y[row, x]), np.median(u[row // 2, x // 2]), np.median(v[row // 2, x // 2]))
    return Color(*(np.array([[value]], np.float32) for value in found))
