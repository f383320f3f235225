"""The face mesh: where it finds a face, where it finds none, and what is measured from its points."""

import cv2
import numpy as np
import pytest
from clips import portrait

from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.faces import FaceFinder


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


def test_the_portrait_shows_one_smiling_face(finder: FaceFinder) -> None:
    face = finder.find(portrait())
    assert face is not None
    assert face.landmarks.shape == (468, 2)
    assert face.landmarks.dtype == np.float32
    assert face.presence > 0.9
    # By eye: the face lies between these borders; the corners of the mouth at (203, 153) and (249, 152).
    assert 165 < face.box.left < 190
    assert 55 < face.box.top < 85
    assert 260 < face.box.right < 290
    assert 165 < face.box.bottom < 190
    assert 0.1 < points.mouth_opening(face.landmarks) < 0.25  # teeth are visible
    assert abs(points.turn(face.landmarks)) < 0.2


def test_tracking_finds_the_same_points_as_looking_afresh(finder: FaceFinder) -> None:
    fresh = finder.find(portrait())
    assert fresh is not None
    tracked = finder.find(portrait(), fresh.landmarks)
    assert tracked is not None
    apart = np.linalg.norm(fresh.landmarks - tracked.landmarks, axis=1).mean()
    assert apart < 0.02 * points.eye_distance(fresh.landmarks)


def test_a_lost_track_is_found_again(finder: FaceFinder) -> None:
    fresh = finder.find(portrait())
    assert fresh is not None
    elsewhere = fresh.landmarks + np.array([250, 250], np.float32)
    again = finder.find(portrait(), elsewhere)
    assert again is not None
    assert np.linalg.norm(again.landmarks - fresh.landmarks, axis=1).mean() < 3


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 3), (1, 300, 3)])
def test_a_picture_of_a_few_pixels_shows_nobody(finder: FaceFinder, shape: tuple[int, int, int]) -> None:
    assert finder.find(np.zeros(shape, np.uint8)) is None


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_empty_picture_has_no_face(finder: FaceFinder, level: int) -> None:
    assert finder.find(np.full((240, 320, 3), level, np.uint8)) is None


def test_a_small_face_in_a_wide_picture_is_found(finder: FaceFinder) -> None:
    wide = np.full((720, 1280, 3), 120, np.uint8)
    wide[400:656, 900:1156] = cv2.resize(portrait(), (256, 256), interpolation=cv2.INTER_AREA)
    face = finder.find(wide)
    assert face is not None
    assert 900 < face.box.left < face.box.right < 1156
    assert 400 < face.box.top < face.box.bottom < 656


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_tilted_head_is_found_with_its_tilt(finder: FaceFinder, degrees: int) -> None:
    matrix = cv2.getRotationMatrix2D((225, 125), -degrees, 1.0)  # cv2 turns counter-clockwise
    tilted = cv2.warpAffine(portrait(), matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    upright, face = finder.find(portrait()), finder.find(np.asarray(tilted, np.uint8))
    assert upright is not None
    assert face is not None
    change = np.degrees(points.roll(face.landmarks) - points.roll(upright.landmarks))
    assert change == pytest.approx(degrees, abs=3)


def test_the_opening_is_the_gap_in_widths_of_the_mouth() -> None:
    shape = np.zeros((468, 2), np.float32)
    shape[points.LEFT_CORNER], shape[points.RIGHT_CORNER] = (0, 0), (50, 0)
    assert points.mouth_opening(shape) == 0
    shape[[87, 14, 317]] = (25, 10)
    shape[[82, 13, 312]] = (25, 0)
    assert points.mouth_opening(shape) == pytest.approx(0.2)


def test_the_lips_are_closed_contours_without_repetition() -> None:
    for contour in (points.OUTER_LIPS, points.INNER_LIPS, points.FACE_OVAL):
        assert len(set(contour)) == len(contour)
        assert all(0 <= index < points.COUNT for index in contour)
    assert set(points.OUTER_LIPS) == set(points.UPPER_OUTER_LIP) | set(points.LOWER_OUTER_LIP)
    assert not set(points.MOUTH_AREA) & set(points.INNER_LIPS)
