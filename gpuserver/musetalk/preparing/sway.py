"""The small movements of someone who sits still: the head sways and turns a little, the chest breathes. What is behind stays.

A picture is moved by a smooth field of displacements that is largest at the head and fades out around the person and towards the
picture's border, so that nothing tears, nothing is uncovered, and straight edges behind the person stay straight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Bytes2D, Floats
from gpuserver.musetalk.rendering.compositor import planes
from gpuserver.musetalk.vision import landmarks as points

# Each movement is a sum of half waves over the loop: cos(pi * k * t / T) stands still at both ends, so that the loop, which plays
# forth and back, has no jerk where it turns. (k, part of the amplitude); at k = 3 a loop of 7 s breathes 13 times a minute.
_ROLL = ((1, 0.6), (2, -0.4))
_SIDEWAYS = ((2, 0.55), (3, 0.45))
_TURN = ((1, -0.4), (3, 0.3), (4, 0.3))
_BREATH = ((3, 1.0),)
_WAVES = (_ROLL, _SIDEWAYS, _TURN, _BREATH)

_ROLL_RADIANS = 0.013  # 0.75 degrees
_SIDEWAYS_PART = 0.022  # of the face's width, like the next two
_TURN_PART = 0.02
_BREATH_PART = 0.012
_FADE_PART = 0.35  # of the face's width: how softly the movement fades out around the person, a standard deviation
_BORDER_PART = 0.1  # of the picture's shorter side
_FIELD_SIDE = 256  # pixels of a field's longer side: it is smooth, the picture's own size would only cost time


class Sway:
    """Moves one picture and the points of its face."""

    def __init__(self, landmarks: Floats, person: Floats, width: int, height: int):
        """landmarks: [468, 2] pixels; person: [any, any] 0..1, a mask of the whole picture; width, height: even."""
        self._landmarks = landmarks
        self._size = (width, height)
        self._fields = _fields(landmarks, person, width, height)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        self._grid = np.stack([x, y], axis=-1)

    def displacement(self, time: float) -> Floats:
        """float32 [h, w, 2] pixels: what is shown at p comes from p - displacement[p]. time: 0 … 1, the length of the loop."""
        import cv2

        weights = [sum(part * np.cos(np.pi * k * time) for k, part in waves) for waves in _WAVES]
        small = np.tensordot(np.array(weights, np.float32), self._fields, 1)
        return np.asarray(cv2.resize(small, self._size, interpolation=cv2.INTER_LINEAR), np.float32)

    def picture(self, source: Bytes2D, displacement: Floats) -> Bytes2D:
        """The moved I420 picture."""
        import cv2

        y, u, v = planes(source)
        at = np.asarray(self._grid - displacement, np.float32)
        half = np.asarray(cv2.resize(at, (u.shape[1], u.shape[0]), interpolation=cv2.INTER_AREA), np.float32)
        half = np.asarray((half - 0.5) / 2, np.float32)  # a chroma sample lies between its four luma samples
        moved = np.empty_like(source)
        ways = ((y, at, cv2.INTER_CUBIC), (u, half, cv2.INTER_LINEAR), (v, half, cv2.INTER_LINEAR))
        for target, (plane, where, how) in zip(planes(moved), ways, strict=True):
            target[...] = _remap(plane, where, how)
        return moved

    def landmarks(self, displacement: Floats) -> Floats:
        """Where the face's points are in the moved picture, [468, 2]."""
        import cv2

        moved = self._landmarks
        for _ in range(3):  # p' = p + d(p'): a contraction, for the field is smooth; three steps leave less than 0.001 pixels
            moved = self._landmarks + _remap(displacement, moved.astype(np.float32)[:, None], cv2.INTER_LINEAR)[:, 0]
        return np.asarray(moved, np.float32)


def _remap(source: NDArray[Any], where: Floats, how: int) -> NDArray[Any]:
    """`source` at the points `where` [h, w, 2]. In two maps: OpenCV 5.0.0 reads one map of two channels wrongly when INTER_LINEAR."""
    import cv2

    x, y = np.ascontiguousarray(where[..., 0]), np.ascontiguousarray(where[..., 1])
    return cv2.remap(source, x, y, how, borderMode=cv2.BORDER_REPLICATE)


def _fields(landmarks: Floats, person: Floats, width: int, height: int) -> Floats:
    """The displacements [4, h', w', 2] (pixels) of the four movements at their full amplitude, in the order of _WAVES, on a grid
    of at most _FIELD_SIDE that covers the picture."""
    scale = min(1.0, _FIELD_SIDE / max(width, height))
    columns, rows = max(2, round(width * scale)), max(2, round(height * scale))
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = (x + 0.5) * (width / columns) - 0.5, (y + 0.5) * (height / rows) - 0.5
    face = float(np.ptp(landmarks[list(points.FACE_OVAL), 0]))
    chin, top, nose = landmarks[points.CHIN], landmarks[points.FOREHEAD], landmarks[points.NOSE_TIP]
    size = float(np.linalg.norm(chin - top))
    neck = chin + (chin - top) * 0.45

    weight = _soft_person(landmarks * scale, person, columns, rows, face * scale) * _inside(x, y, width, height)
    head = weight * _falling((y - chin[1]) / size + 0.1)  # the shoulders stay when the head moves
    bump = weight * np.exp(-((x - nose[0]) ** 2 + (y - nose[1]) ** 2) / (2 * (0.42 * face) ** 2))  # the nose is nearer than the ears
    chest = weight * _falling((chin[1] + 1.6 * size - y) / (1.6 * size)) + head * 0.5
    still = np.zeros_like(weight)
    return np.stack(
        [
            np.stack([-(y - neck[1]) * head, (x - neck[0]) * head], axis=-1) * _ROLL_RADIANS,
            np.stack([head, still], axis=-1) * (_SIDEWAYS_PART * face),
            np.stack([bump, still], axis=-1) * (_TURN_PART * face),
            np.stack([still, np.minimum(chest, 1)], axis=-1) * (_BREATH_PART * face),
        ]
    ).astype(np.float32)


def _soft_person(landmarks: Floats, person: Floats, columns: int, rows: int, face: float) -> Floats:
    """[rows, columns]: 1 on the person and right around it, softly falling to 0. The face counts in any case, whatever the mask
    says. landmarks and face (its width) in units of the grid."""
    import cv2

    mask = (cv2.resize(person, (columns, rows), interpolation=cv2.INTER_AREA) > 0.5).astype(np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(landmarks.astype(np.int32)), 1.0)
    sigma = _FADE_PART * face
    reach = 2 * round(1.2 * sigma) + 1
    wide = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    return np.asarray(cv2.GaussianBlur(wide, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _inside(x: Floats, y: Floats, width: int, height: int) -> Floats:
    """0 at the picture's border, 1 away from it."""
    ramp = _BORDER_PART * min(width, height)
    distance = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    return 1 - _falling(np.asarray(distance / ramp, np.float32))


def _falling(t: Floats) -> Floats:
    """1 for t <= 0, 0 for t >= 1, smooth in between."""
    t = np.clip(t, 0, 1)
    return np.asarray(1 - t * t * (3 - 2 * t), np.float32)
