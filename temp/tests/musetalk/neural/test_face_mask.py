"""The mask from landmarks: the mouth and the jaw, softly; no nose, no eyes, no edge of the box."""

from __future__ import annotations

import numpy as np
import pytest
from clips import portrait, portrait_face

from gpuserver.domain import Box
from gpuserver.musetalk.neural.blending import MaskMode
from gpuserver.musetalk.neural.face_boxes import mesh_boxes
from gpuserver.musetalk.neural.face_mask import landmark_classes, visible_mask
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.faces import FaceFinder

SIZE = (512, 512)


def mask_of(landmarks: np.ndarray, mode: MaskMode = "jaw", size: tuple[int, int] = SIZE) -> tuple[np.ndarray, Box, Box]:
    """The mask over the whole picture, the face box and the mask's box."""
    (face,) = mesh_boxes(landmarks[None], [Box(0, 0, *size)], *size)
    found = visible_mask(landmark_classes(landmarks, face), face, mode, *size)
    assert found is not None
    mask, shown = found
    whole = np.zeros(size[::-1], np.uint8)
    whole[shown.top : shown.bottom, shown.left : shown.right] = mask
    return whole, face, shown


def at(mask: np.ndarray, landmarks: np.ndarray, *indices: int) -> np.ndarray:
    x, y = np.rint(landmarks[list(indices)]).astype(int).T
    return np.asarray(mask[y, x])


def turned(landmarks: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    centre = landmarks.mean(axis=0)
    return np.asarray((landmarks - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre, np.float32)


@pytest.mark.parametrize("roll", [-15, 0, 15])
def test_the_mouth_is_drawn_and_neither_nose_nor_eyes_are(roll: float) -> None:
    landmarks = turned(portrait_face().landmarks, roll)
    mask, _, _ = mask_of(landmarks)
    assert at(mask, landmarks, *points.LOWER_INNER_LIP).min() > 200
    assert at(mask, landmarks, points.LEFT_CORNER, points.RIGHT_CORNER, 17, 200).min() > 200
    assert at(mask, landmarks, points.NOSE_TIP, 4, 5, 195, 6, 168).max() < 16
    assert at(mask, landmarks, 129, 358, 98, 327).max() < 64  # the wings of the nose
    assert at(mask, landmarks, *points.LEFT_EYE, *points.RIGHT_EYE).max() == 0


def test_the_mask_is_soft_and_has_the_shape_of_a_jaw() -> None:
    landmarks = portrait_face().landmarks
    mask, face, _ = mask_of(landmarks)
    steps = max(np.abs(np.diff(mask.astype(int), axis=axis)).max() for axis in (0, 1))
    assert steps < 40
    widths = (mask > 128).sum(axis=1)
    mouth, chin = (int(landmarks[index, 1]) for index in (points.LOWER_LIP_CENTRE, points.CHIN))
    assert widths[mouth] > 1.3 * widths[chin - 8] > 0
    assert not mask[: (face.top + face.bottom) // 2 - face.height // 10].any()


@pytest.mark.parametrize("mode", ["jaw", "raw", "neck"])
def test_at_the_rim_of_its_box_nothing_is_drawn(mode: MaskMode) -> None:
    landmarks = portrait_face().landmarks
    mask, face, shown = mask_of(landmarks, mode)
    edges = (shown.left, shown.top, shown.right, shown.bottom)
    assert all(edge % 2 == 0 for edge in edges)
    assert mask[face.bottom - 1].max() <= 8
    assert not mask[face.bottom :].any()
    assert mask[:, shown.left].max() <= 64
    assert mask[:, shown.right - 1].max() <= 64
    assert mask[shown.top + 2 : shown.bottom - 2, shown.left + 2 : shown.right - 2].any()


def test_a_chin_below_the_picture_does_not_fade_the_mouth() -> None:
    landmarks = portrait_face().landmarks
    height = int(landmarks[points.CHIN, 1] - 20) & ~1
    mask, _, shown = mask_of(landmarks, size=(512, height))
    assert shown.bottom == height
    assert mask[-1].max() > 100


def test_a_map_without_skin_shows_nothing() -> None:
    assert visible_mask(np.zeros((512, 512), np.uint8), Box(100, 100, 300, 340), "jaw", *SIZE) is None


def test_the_parts_of_the_drawn_map_lie_where_the_picture_has_them() -> None:
    face = FaceFinder().find(portrait())
    assert face is not None
    classes = landmark_classes(face.landmarks, Box(100, 100, 356, 356))
    assert set(np.unique(classes)) == {0, 1, 4, 10, 11, 12}
    rows = {part: np.flatnonzero((classes == part).any(axis=1)).mean() for part in (4, 10, 11)}
    assert rows[4] < rows[10] < rows[11]
