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
from gpuserver.musetalk import landmarks as points
from gpuserver.musetalk.compositor import planes
from gpuserver.musetalk.person import SIDE, PersonFinder

_BLUR_PART = 0.14  # of the face's width, a standard deviation: shapes stay, writing does not
_COARSE_SIGMA = 4.0  # pixels: the picture is made small until the blur is this wide, then enlarged again

_REACH = 5  # frames before and after, in which a mask is steadied
_TIME_SIGMA = 2.5  # frames
_MOTION_SIGMA = 6.0  # grey levels of 256: what changes by more has moved

_GUIDE_PART = 1 / 48  # radius of the guided filter, of the picture's longer side
_GUIDE_SMOOTH = 0.0015  # its epsilon: contrast (of 1, squared) that counts as an edge
_SURE = (0.15, 0.85)  # mask values that become 0 and 1
_FACE_PART = 0.94  # the face itself is never blurred: its oval, a little smaller, for the mesh reaches to its edge …
_FACE_SOFT = 0.025  # … and softly, a part of its width


@dataclass(frozen=True, slots=True, eq=False)
class Silhouette:
    """Where the person is in one picture. mask, luma: uint8 [256, 256], the whole picture stretched to a square."""

    mask: Bytes2D
    luma: Bytes2D


def silhouette(finder: PersonFinder, rgb: NDArray[np.uint8]) -> Silhouette:
    """rgb: [h, w, 3]."""
    import cv2

    mask = np.rint(finder.find(rgb) * 255).astype(np.uint8)
    luma = cv2.cvtColor(cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
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
        for target, plane, weight, factor in zip(
            planes(blurred), (y, u, v), (person, half, half), (self._factor, self._factor / 2, self._factor / 2), strict=True
        ):
            behind = _blurred_behind(plane, weight, factor)
            mixed = behind + weight * (plane - behind)
            target[...] = np.where(weight >= 1, plane, np.clip(mixed + 0.5, 0, 255)).astype(np.uint8)
        return blurred

    def _person(self, luma: Bytes2D, mask: Floats, landmarks: Floats) -> Floats:
        """The mask in the picture's size, 0..1, with the picture's own edges."""
        import cv2

        person = _guided(np.asarray(cv2.resize(mask, self._size, interpolation=cv2.INTER_CUBIC), np.float32), luma)
        low, high = _SURE
        person = np.clip((person - low) / (high - low), 0, 1)
        oval = landmarks[list(points.FACE_OVAL)]
        centre = oval.mean(axis=0)
        face = np.zeros(luma.shape, np.float32)
        cv2.fillPoly(face, [np.rint((oval - centre) * _FACE_PART + centre).astype(np.int32)], 1.0)
        soft = cv2.GaussianBlur(face, (0, 0), max(0.5, _FACE_SOFT * float(np.ptp(oval[:, 0]))))
        return np.asarray(np.maximum(person, soft), np.float32)


def _weights(frames: int) -> NDArray[np.float32]:
    """How much a mask `frames` away counts, by the change of the picture at the place: float32 [256]."""
    change = np.arange(256, dtype=np.float32)
    return np.asarray(np.exp(-(change**2) / (2 * _MOTION_SIGMA**2) - frames**2 / (2 * _TIME_SIGMA**2)), np.float32)


def _guided(mask: Floats, luma: Bytes2D) -> Floats:
    """The mask with the edges of the picture (guided filter: He, Sun and Tang 2010), computed at half the size (He and Sun 2015)."""
    import cv2

    height, width = luma.shape
    small = (width // 2, height // 2)
    guide = np.asarray(cv2.resize(luma, small, interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)
    wanted = np.asarray(cv2.resize(mask, small, interpolation=cv2.INTER_AREA), np.float32)
    side = 2 * max(1, round(max(small) * _GUIDE_PART)) + 1

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.blur(values, (side, side)), np.float32)

    guide_mean, mask_mean = mean(guide), mean(wanted)
    variance = mean(guide * guide) - guide_mean**2
    slope = (mean(guide * wanted) - guide_mean * mask_mean) / (variance + _GUIDE_SMOOTH)
    offset = mask_mean - slope * guide_mean
    slope, offset = (
        np.asarray(cv2.resize(mean(values), (width, height), interpolation=cv2.INTER_LINEAR), np.float32) for values in (slope, offset)
    )
    return np.asarray(slope * (luma.astype(np.float32) / np.float32(255)) + offset, np.float32)


def _blurred_behind(plane: Bytes2D, person: Floats, factor: float) -> Floats:
    """The plane's background, blurred; where there is only person it is what lies around. factor: how much smaller it is computed."""
    import cv2

    height, width = plane.shape
    size = (max(2, round(width / factor)), max(2, round(height / factor)))
    behind = (1 - person) ** 2  # what is half a person hardly counts
    share = cv2.resize(behind, size, interpolation=cv2.INTER_AREA)
    light = cv2.resize(behind * plane, size, interpolation=cv2.INTER_AREA)
    share, light = (cv2.GaussianBlur(values, (0, 0), _COARSE_SIGMA, borderType=cv2.BORDER_REFLECT_101) for values in (share, light))
    blurred = (light + 1e-4 * 128) / (share + 1e-4)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
