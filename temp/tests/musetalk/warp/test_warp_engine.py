"""The warp engine draws mouths: closed where they must be, untouched outside the mouth, whole at the corners and at any border."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from clips import portrait, portrait_face

from bench.lips import lip_gaps
from gpuserver.domain import AvatarFrame, Bytes2D, FaceCrop, Floats, Generation, MouthJob
from gpuserver.musetalk.rendering.compositor import compose
from gpuserver.musetalk.warp.mouth_fields import MouthFields, move_mouths
from gpuserver.musetalk.warp.mouth_geometry import measure_mouth
from gpuserver.musetalk.warp.mouth_light import planes
from gpuserver.musetalk.warp.mouth_row import side_by_side
from gpuserver.musetalk.warp.mouth_shape import PARTS, Part
from gpuserver.musetalk.warp.warp_engine import WarpEngine

GENERATION = Generation(1)


def row(**parts: float) -> Floats:
    made = np.zeros(PARTS, np.float32)
    for name, value in parts.items():
        made[Part[name.upper()]] = value
    return made


REST = row()
OPEN = row(opening=0.4, jaw=0.26, lift=0.3, teeth=0.6)
ROUND = row(opening=0.14, jaw=0.09, width=-0.12, rounding=1.0)
WIDE = row(opening=0.2, jaw=0.1, width=0.1, teeth=1.0)
EXTREME = row(opening=0.8, jaw=0.6, width=-0.4, rounding=1.0, lift=1.0, press=1.0)


@cache
def frame(turn: float = 0.0, scale: float = 1.0, left: int = 0, top: int = 0) -> AvatarFrame:
    """The portrait turned (degrees) about its mouth, scaled, with `left` and `top` pixels cut off or (negative) added."""
    face = portrait_face()
    x, y = face.landmarks[[13, 14]].mean(0)
    matrix = cv2.getRotationMatrix2D((float(x), float(y)), -turn, scale)
    matrix[:, 2] -= [left, top]
    rgb = cv2.warpAffine(portrait(), matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    landmarks = (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    picture.setflags(write=False)
    return AvatarFrame(0, np.asarray(picture, np.uint8), landmarks, face.box, 0.16)


def draw(source: AvatarFrame, features: Floats) -> FaceCrop:
    return WarpEngine().render([MouthJob(source, features, 0.0, GENERATION)])[0]


def moved_mouth(source: AvatarFrame, features: Floats) -> MouthFields:
    return move_mouths(side_by_side([measure_mouth(source)]), features[None])


def gap(source: AvatarFrame, features: Floats) -> float:
    """The gap between the lips that the face mesh finds in the drawn picture."""
    picture = compose(source, draw(source, features))
    return float(lip_gaps([np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8)])[0][0])


def source_crop(source: AvatarFrame, crop: FaceCrop) -> tuple[Bytes2D, Bytes2D, Bytes2D]:
    y, u, v = planes(source)
    b = crop.box
    half = (slice(b.top // 2, b.bottom // 2), slice(b.left // 2, b.right // 2))
    return y[b.top : b.bottom, b.left : b.right], u[half], v[half]


def test_rest_closes_the_smile_of_the_portrait() -> None:
    source = frame()
    smile = float(lip_gaps([portrait()])[0][0])
    assert smile > 0.14
    assert gap(source, REST) < 0.15 * gap(source, OPEN)


def test_lips_are_closed_on_a_p_and_open_on_an_ah() -> None:
    source = frame()
    assert gap(source, row(press=1.0)) < 0.15 * gap(source, OPEN)
    assert gap(source, OPEN) > 0.2


@pytest.mark.parametrize("features", [REST, OPEN, ROUND, WIDE], ids=["rest", "open", "round", "wide"])
@pytest.mark.parametrize("turn", [0.0, 30.0, -30.0])
def test_the_rim_of_the_crop_is_the_source(features: Floats, turn: float) -> None:
    source = frame(turn)
    crop = draw(source, features)
    for drawn, original in zip((crop.y, crop.u, crop.v), source_crop(source, crop), strict=True):
        for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            np.testing.assert_array_equal(drawn[edge], original[edge])


def test_eyes_and_nose_and_neck_are_the_source_to_the_bit() -> None:
    source = frame()
    drawn = compose(source, draw(source, OPEN))[:512]
    changed = np.argwhere(drawn != source.picture[:512])
    nose, mouth = source.landmarks[4], source.landmarks[14]
    width = float(np.linalg.norm(source.landmarks[291] - source.landmarks[61]))
    chin = float(source.landmarks[152, 1])
    assert len(changed) > 500
    assert changed[:, 0].min() > nose[1] - 0.3 * width
    assert changed[:, 0].max() < chin + 0.7 * width
    assert np.abs(changed[:, 1] - mouth[0]).max() < 1.5 * width


def test_a_mouth_that_is_closed_in_the_source_and_stays_closed_is_the_source() -> None:
    smiling = frame()
    landmarks = smiling.landmarks.copy()
    landmarks[[95, 88, 178, 87, 14, 317, 402, 318, 324]] = landmarks[[191, 80, 81, 82, 13, 312, 311, 310, 415]]
    closed = AvatarFrame(0, smiling.picture, landmarks, smiling.face, 0.0)
    crop = draw(closed, REST)
    for drawn, original in zip((crop.y, crop.u, crop.v), source_crop(closed, crop), strict=True):
        np.testing.assert_array_equal(drawn, original)


def test_the_source_picture_is_never_written_to() -> None:
    source = frame()
    before = source.picture.copy()
    draw(source, OPEN)
    np.testing.assert_array_equal(source.picture, before)


def test_drawing_depends_on_the_job_alone() -> None:
    engine, sources = WarpEngine(), (frame(), frame(10.0), frame(scale=0.4), frame(-30.0, 2.0), frame(left=-500))
    jobs = [MouthJob(f, r, 0.0, GENERATION) for f in sources for r in (OPEN, REST, ROUND)]
    first = engine.render(jobs)
    again = engine.render(jobs[::-1])[::-1]
    for one, two, job in zip(first, again, jobs, strict=True):
        alone = draw(job.frame, job.features)
        for crop in (two, alone):
            assert crop.box == one.box
            np.testing.assert_array_equal(crop.y, one.y)
            np.testing.assert_array_equal(crop.u, one.u)


def test_a_long_loop_does_not_grow_the_engine() -> None:
    engine, source = WarpEngine(), frame(scale=0.3)
    loop = [AvatarFrame(index, source.picture, source.landmarks, source.face, 0.16) for index in range(300)]
    for each in loop:
        engine.render([MouthJob(each, REST, 0.0, GENERATION)])
    assert len(engine._sources) == 256


@pytest.mark.parametrize("features", [REST, OPEN, ROUND, WIDE, EXTREME], ids=["rest", "open", "round", "wide", "extreme"])
def test_nothing_folds_over(features: Floats) -> None:
    mouth = measure_mouth(frame())
    backward = moved_mouth(frame(), features).backward[:, 0]
    step_x, step_y = mouth.x[1] - mouth.x[0], mouth.y[1] - mouth.y[0]
    assert (1 + np.diff(backward[0], axis=1) / step_x).min() > 0
    below = backward[3] > 0
    for layer, shown in ((1, ~below[1:]), (2, below[:-1])):  # the other layer hides the rest
        down = 1 + np.diff(backward[layer], axis=0) / step_y
        assert down[shown].min() > 0


def test_the_lips_stay_joined_at_the_corners() -> None:
    moved = moved_mouth(frame(), OPEN)
    beside = np.abs(moved.place) > 1.02
    np.testing.assert_allclose(moved.upper_inner[beside], moved.lower_inner[beside], atol=1e-6)
    assert (moved.lower_inner >= moved.upper_inner).all()


def test_a_bigger_opening_is_a_bigger_gap_and_a_small_step_moves_little() -> None:
    source, gaps, last = frame(), [], None
    for opening in np.linspace(0, 0.4, 9):
        crop = draw(source, row(opening=float(opening), jaw=float(opening) * 0.6, teeth=0.6))
        moved = moved_mouth(source, row(opening=float(opening)))
        gaps.append(float((moved.lower_inner - moved.upper_inner).max()))
        if last is not None:
            assert np.abs(crop.y.astype(int) - last).mean() < 6
        last = crop.y.astype(int)
    assert (np.diff(gaps) > 0).all()


@pytest.mark.parametrize(
    ("left", "top"), [(200, 0), (-260, 0), (0, 200), (0, -280), (216, 216), (-500, 0), (0, 700)],
    ids=["left", "right", "top", "bottom", "corner", "outside right", "outside above"],
)  # fmt: skip
def test_a_face_at_the_border_or_beyond_gets_an_even_box_inside_the_picture(left: int, top: int) -> None:
    crop = draw(frame(left=left, top=top), OPEN)
    b = crop.box
    assert all(edge % 2 == 0 for edge in (b.left, b.top, b.right, b.bottom))
    assert 0 <= b.left < b.right <= 512
    assert 0 <= b.top < b.bottom <= 512
    assert crop.y.shape == (b.height, b.width)
    assert crop.u.shape == crop.v.shape == (b.height // 2, b.width // 2)


@pytest.mark.parametrize("turn", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_tilted_small_and_large_heads_open_their_mouths(turn: float, scale: float) -> None:
    source = frame(turn, scale)
    crop = draw(source, OPEN)
    original = source_crop(source, crop)[0].astype(int)
    assert np.abs(crop.y - original).max() > 60  # the cavity
    assert crop.box.width < 4 * scale * 110


def test_the_rest_row_is_that_of_closed_lips() -> None:
    np.testing.assert_array_equal(WarpEngine().rest(), REST)


def test_the_frames_of_a_deleted_avatar_are_let_go() -> None:
    """Mapped from the disk, they would take room there."""
    engine, drawn = WarpEngine(), replace(frame())
    engine.render([MouthJob(drawn, OPEN, 0.0, GENERATION)])
    held = weakref.ref(drawn)
    del drawn
    gc.collect()
    assert held() is None
