"""The official box formula against golden cases, and our own boxes over time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpuserver.domain import Box
from gpuserver.musetalk.neural.face_boxes import IBUG_68, NO_FACE, RIDGE, face_box, mesh_boxes, smooth_edges, with_margin

CASES = json.loads((Path(__file__).parents[2] / "golden" / "bbox_cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_the_box_is_the_official_one(case: dict[str, list[list[float]]]) -> None:
    for points, detected, expected in zip(case["landmarks68"], case["detector"], case["out"], strict=True):
        found = None if detected is None else Box(*map(int, detected))
        assert face_box(np.array(points), found, int(case["shift"])) == Box(*map(int, expected))  # type: ignore[call-overload]


def test_without_a_face_there_is_no_box() -> None:
    assert face_box(np.ones((68, 2)), None) == NO_FACE


def test_a_point_left_of_the_picture_makes_the_detectors_box_count() -> None:
    points = np.random.default_rng(0).uniform(10, 90, (68, 2))
    points[0, 0] = -3
    assert face_box(points, Box(1, 2, 3, 4)) == Box(1, 2, 3, 4)


def test_the_shift_is_written_into_the_point_itself() -> None:
    points, detected = np.zeros((68, 2)), Box(0, 0, 1, 1)
    points[:, 0] = np.linspace(10, 60, 68)
    points[:, 1] = 50
    points[RIDGE, 1] = 45
    points[8, 1] = 60
    assert face_box(points, detected, shift=10) == Box(10, 50, 60, 60)
    assert face_box(points, detected, shift=20) == detected  # the point is the lowest of all: the box is empty


def test_the_margin_ends_with_the_picture() -> None:
    assert with_margin(Box(0, 0, 9, 50), 10, 55) == Box(0, 0, 9, 55)
    assert with_margin(Box(0, 0, 9, 50), 10, 100) == Box(0, 0, 9, 60)


def walking_faces(count: int, noise: float) -> np.ndarray:
    """A round face that walks 3 pixels per frame; its points tremble by `noise` pixels."""
    random = np.random.default_rng(7)
    angle = np.linspace(0, 2 * np.pi, 468, endpoint=False)
    shape = np.stack([50 * np.cos(angle), 60 * np.sin(angle)], axis=1) + 100
    shape[IBUG_68[RIDGE]] = (100, 105)
    path = 3 * np.arange(count)[:, None, None] * np.array([1, 0])
    return np.asarray(shape + path + random.normal(0, noise, (count, 468, 2)), np.float32)


def test_boxes_follow_a_moving_face_without_delay_and_without_its_trembling() -> None:
    landmarks = walking_faces(60, noise=0.7)
    boxes = mesh_boxes(landmarks, [Box(0, 0, 1, 1)] * 60, 2000, 400, margin=0)
    middles = np.array([(box.left + box.right) / 2 for box in boxes])
    assert np.abs(middles - (100 + 3 * np.arange(60)))[8:-8].max() <= 1.5
    rough = np.array([face_box(points[list(IBUG_68)], Box(0, 0, 1, 1)).height for points in landmarks])
    assert np.std([box.height for box in boxes]) < 0.5 * np.std(rough)


def test_boxes_lie_inside_the_picture_and_one_frame_has_one() -> None:
    landmarks = walking_faces(1, noise=0) - np.float32(70)
    (box,) = mesh_boxes(landmarks, [Box(0, 0, 1, 1)], 60, 70)
    assert box.left == 0
    assert box.right == 60
    assert box.bottom == 70


def test_a_face_outside_the_picture_takes_its_own_box() -> None:
    landmarks = walking_faces(1, noise=0) + np.float32(500)
    assert mesh_boxes(landmarks, [Box(2, 2, 8, 8)], 60, 60, margin=0) == [Box(2, 2, 8, 8)]


def test_a_still_box_stays_where_it_is() -> None:
    edges = np.tile([10.0, 20.0, 30.0, 60.0], (9, 1))
    np.testing.assert_allclose(smooth_edges(edges), edges)
