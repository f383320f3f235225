"""Blurs what is behind the person, in I420, without a halo and without flicker.

The mask of each picture is steadied by those around it wherever the picture itself stands still, then brought from 256 pixels to the
picture's size along the edges that the picture has. Only the background goes into the blur, so the person does not glow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Bytes2D, Floats
from gpuserver.musetalk.rendering.compositor import planes
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.person import SIDE, PersonFinder

_BLUR_PART = 0.14  # of the face's width, a standard deviation: shapes stay, writing does not
_COARSE_SIGMA = 4.0  # pixels: the picture is made small until the blur is this wide, then enlarged again

_REACH = 5  # frames before and after, in which a mask is steadied
_TIME_SIGMA = 2.5  # frames
_MOTION_SIGMA = 6.0  # grey levels of 256: what changes by more has moved

_GUIDE_PART = 1 / 48  # radius of the guided filter, of the picture's longer side
_GUIDE_SMOOTH = 0.0015  # its epsilon: contrast (of 1, squared) that counts as an edge
_SURE = (0.15, 0.85)  # mask values that become 0 and 1
_FACE_PART = 0.94  # the face itself is never blurred: its oval, a little smaller, for the mesh reaches to its edge …
_NEXT_TO_NOTHING = 1e-4  # a share of background below which there is none to take a mean of
_FACE_SOFT = 0.025  # … and softly, a part of its width


@dataclass(frozen=True, slots=True, eq=False)
class Silhouette:
    """Where the person is in one picture. mask, luma: uint8 [256, 256], the whole picture stretched to a square."""

    mask: Bytes2D
    luma: Bytes2D


def silhouette(finder: PersonFinder, rgb: NDArray[np.uint8]) -> Silhouette:
    """rgb: [h, w, 3]."""
    import cv2

    small = np.asarray(cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.rint(finder.find(small) * 255).astype(np.uint8)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return Silhouette(mask, np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.0), np.uint8))


def steady_mask(silhouettes: Sequence[Silhouette], index: int) -> Floats:
    """The mask at `index`, float32 [256, 256] 0..1: a mean over the frames around it, without those in which the place has moved."""
    import cv2

    here = silhouettes[index]
    total, weights = here.mask.astype(np.float32), np.ones((SIDE, SIDE), np.float32)
    for other in range(max(0, index - _REACH), min(len(silhouettes), index + _REACH + 1)):
        if other != index:
            change = cv2.absdiff(here.luma, silhouettes[other].luma)
            weight = cv2.LUT(change, _weights(abs(other - index)))
            total += weight * silhouettes[other].mask
            weights += weight
    return np.asarray(total / weights / 255, np.float32)


class BackgroundBlur:
    """Blurs the background of pictures of one size."""

    def __init__(self, width: int, height: int, face_width: float):
        """width, height: even. face_width: pixels."""
        self._size = (width, height)
        self._factor = max(1.0, _BLUR_PART * face_width / _COARSE_SIGMA)

    def picture(self, picture: Bytes2D, mask: Floats, landmarks: Floats) -> Bytes2D:
        """A new I420 picture [h * 3 / 2, w]; on the person it is the old one, bit by bit. mask: any size, 0..1."""
        import cv2

        y, u, v = planes(picture)
        person = self._person(y, mask, landmarks)
        half = np.asarray(cv2.resize(person, (u.shape[1], u.shape[0]), interpolation=cv2.INTER_AREA), np.float32)
        blurred = np.empty_like(picture)
        new_y, new_u, new_v = planes(blurred)
        _blur_behind((y,), person, self._factor, (new_y,))
        _blur_behind((u, v), half, self._factor / 2, (new_u, new_v))
        return blurred

    def _person(self, luma: Bytes2D, mask: Floats, landmarks: Floats) -> Floats:
        """The mask in the picture's size, 0..1, with the picture's own edges."""
        import cv2

        slope, offset = _guide(mask, luma)
        low, high = _SURE
        line = slope * luma + offset  # of the guided filter, at every pixel of the picture
        person = np.clip((line - low) / (high - low), 0, 1)
        return np.asarray(np.maximum(person, cv2.resize(_face(landmarks, luma.shape), self._size)), np.float32)


def _weights(frames: int) -> NDArray[np.float32]:
    """How much a mask `frames` away counts, by the change of the picture at the place: float32 [256]."""
    change = np.arange(256, dtype=np.float32)
    return np.asarray(np.exp(-(change**2) / (2 * _MOTION_SIGMA**2) - frames**2 / (2 * _TIME_SIGMA**2)), np.float32)


def _guide(mask: Floats, luma: Bytes2D) -> tuple[Floats, Floats]:
    """Slope and offset [h, w] of the line that makes the mask out of the picture's luma around each pixel: a mask with its edges.

    Guided filter (He, Sun and Tang 2010), computed at half the size (He and Sun 2015).
    """
    import cv2

    height, width = luma.shape
    small = (width // 2, height // 2)
    guide = np.asarray(cv2.resize(luma, small, interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)
    wanted = np.asarray(cv2.resize(mask, small, interpolation=cv2.INTER_LINEAR), np.float32)
    side = 2 * max(1, round(max(small) * _GUIDE_PART)) + 1
    means = cv2.blur(cv2.merge([guide, wanted, guide * guide, guide * wanted]), (side, side))
    guide_mean, mask_mean = means[..., 0], means[..., 1]
    slope = (means[..., 3] - guide_mean * mask_mean) / (means[..., 2] - guide_mean**2 + _GUIDE_SMOOTH)
    line = cv2.blur(cv2.merge([slope / 255, mask_mean - slope * guide_mean]), (side, side))
    large = np.asarray(cv2.resize(line, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return large[..., 0], large[..., 1]


def _face(landmarks: Floats, shape: tuple[int, ...]) -> Floats:
    """The face's oval, 1 inside and softly 0 outside, at half the size of a picture of `shape`."""
    import cv2

    oval = landmarks[list(points.FACE_OVAL)] / 2
    centre = oval.mean(axis=0)
    face = np.zeros((shape[0] // 2, shape[1] // 2), np.float32)
    cv2.fillPoly(face, [np.rint((oval - centre) * _FACE_PART + centre).astype(np.int32)], 1.0)
    return np.asarray(cv2.GaussianBlur(face, (0, 0), max(0.5, _FACE_SOFT * float(np.ptp(oval[:, 0])))), np.float32)


def _blur_behind(sources: Sequence[Bytes2D], person: Floats, factor: float, targets: Sequence[Bytes2D]) -> None:
    """Put the planes `sources`, with their background blurred, into `targets`. factor: how much smaller the blur is computed.

    The blur is a mean over background only (a normalized convolution); where there is only person it is what lies around.
    """
    import cv2

    height, width = person.shape
    size = (max(2, round(width / factor)), max(2, round(height / factor)))
    behind = (1 - person) ** 2  # what is half a person hardly counts
    stack = cv2.merge([behind, *(behind * plane for plane in sources)])
    small = cv2.resize(stack, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _COARSE_SIGMA, borderType=cv2.BORDER_REFLECT_101)
    mean = (small[..., 1:] + _NEXT_TO_NOTHING * 128) / (small[..., :1] + _NEXT_TO_NOTHING)
    large = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, len(sources))
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        blurred = large[..., index]
        # Rounded to the nearest; where person is 1 this is the source itself.
        target[...] = cv2.convertScaleAbs(blurred + person * (source - blurred))
