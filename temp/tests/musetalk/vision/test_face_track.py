"""Which frames of a clip can talk: a hand over the mouth, a turned head and an empty picture are cut, a smile is not."""

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from clips import Clip, artist, portrait, portrait_face, sample
from numpy.typing import NDArray

from gpuserver.musetalk.preparing.video import Video
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.face_track import MAX_TURN, FaceTrack, Run, smoothed
from gpuserver.musetalk.vision.faces import Face, FaceFinder


class TurnedFace:
    """Stands in for FaceFinder: the portrait's points, with the nose where a head turned by `turns[n]` has it."""

    def __init__(self, turns: list[float]):
        self._turns = iter(turns)
        self._face = portrait_face()

    def find(self, rgb: NDArray[np.uint8], previous: object = None, *, thorough: bool = True) -> Face:
        shape = self._face.landmarks.copy()
        left, right = shape[points.LEFT_CHEEK], shape[points.RIGHT_CHEEK]
        shape[points.NOSE_TIP] = (left + right) / 2 + next(self._turns) * (right - left) / 2
        return Face(shape, 1.0, self._face.box)

    def others(self, rgb: NDArray[np.uint8], face: Face) -> int:
        return 0

    def is_upside_down(self, rgb: np.ndarray) -> bool:
        return False


def follow(pictures: Iterable[NDArray[np.uint8]]) -> tuple[FaceTrack, Run | None]:
    track = FaceTrack(FaceFinder())
    shape = (0, 0)
    for picture in pictures:
        track.see(picture)
        shape = picture.shape[:2]
    return track, track.judge(shape[1], shape[0]).run


def shown(clip: Clip) -> list[NDArray[np.uint8]]:
    draw = artist(clip)
    return [draw(t) for t in clip.times]


def test_a_moving_head_is_used_whole() -> None:
    _, run = follow(shown(Clip(seconds=2, sway=0.15)))
    assert run == Run(0, 50)


def test_a_hand_over_the_mouth_and_what_lies_right_beside_it_is_cut() -> None:
    track, run = follow(shown(Clip(seconds=3, hidden=((0.6, 1.0),))))
    assert run is not None
    assert 25 <= run.start <= 30
    assert run.stop == 75
    assert 10 <= track.judge(320, 240).covered <= 18


def test_pictures_without_a_face_are_cut() -> None:
    track, run = follow(shown(Clip(seconds=2, faceless=((0.4, 0.6),))))
    assert run == Run(15, 50)
    assert track.judge(320, 240).without_face == 5


def test_a_turned_head_is_cut() -> None:
    turns = [0.0] * 5 + [MAX_TURN + 0.05] * 3 + [0.2] * 9 + [-MAX_TURN - 0.05] + [0.0] * 4
    track = FaceTrack(TurnedFace(turns))  # type: ignore[arg-type]
    for _ in turns:
        track.see(portrait())
    findings = track.judge(512, 512)
    assert findings.run == Run(8, 17)
    assert findings.turned_away == 4


def test_a_cut_to_another_place_breaks_the_run() -> None:
    left, right = shown(Clip(seconds=0.6, sway=0)), shown(Clip(seconds=1, sway=0))
    moved = [np.ascontiguousarray(np.roll(picture, 90, axis=1)) for picture in right]
    _, run = follow(left + moved)
    assert run == Run(15, 40)


def test_a_face_that_is_too_small_is_not_used() -> None:
    small = cv2.resize(portrait(), (96, 96), interpolation=cv2.INTER_AREA)
    picture = np.full((120, 120, 3), 120, np.uint8)
    picture[12:108, 12:108] = small
    track, run = follow([picture] * 3)
    assert run is None
    assert track.judge(120, 120).too_small == 3


def test_a_repeated_picture_needs_no_second_look() -> None:
    track = FaceTrack(FaceFinder())
    track.see(portrait())
    track.see_again()
    assert track.judge(512, 512).run == Run(0, 2)


def test_smoothing_takes_the_jitter_and_leaves_the_motion() -> None:
    random = np.random.default_rng(3)
    base = portrait_face().landmarks
    eye = points.eye_distance(base)
    frames = np.arange(60)
    motion = np.stack([base + np.array([0.0, 0.6 * eye * np.sin(frame / 4)], np.float32) for frame in frames])
    noisy = (motion + random.normal(0, 0.004 * eye, motion.shape)).astype(np.float32)
    rest = np.repeat(base[None], 60, axis=0)
    still = (rest + random.normal(0, 0.004 * eye, rest.shape)).astype(np.float32)
    assert np.std(smoothed(still) - rest) < 0.6 * np.std(still - rest)
    error = smoothed(noisy) - motion
    assert np.abs(error).max() < 0.03 * eye  # neither late nor flattened: the motion itself is 0.15 eye distances per frame
    assert np.abs(error.mean(axis=(1, 2))).max() < 0.004 * eye


def test_smoothing_does_not_delay_a_snapping_mouth() -> None:
    base = portrait_face().landmarks
    closed, opened = base.copy(), base.copy()
    opened[list(points.LOWER_INNER_LIP)] += (0, 12)
    clip = np.stack([closed] * 10 + [opened] * 10).astype(np.float32)
    openings = [points.mouth_opening(shape) for shape in smoothed(clip)]
    before, after = points.mouth_opening(closed), points.mouth_opening(opened)
    assert openings[:10] == pytest.approx([before] * 10, abs=0.01)
    assert openings[10:] == pytest.approx([after] * 10, abs=0.01)


def test_one_frame_is_smooth_as_it_is() -> None:
    base = portrait_face().landmarks[None]
    assert np.array_equal(smoothed(base), base)


@pytest.mark.parametrize(
    ("name", "starts", "stops"),
    [
        # By eye: the hand is near the mouth from frame 59 to 240 of 492.
        ("hand_over_mouth.mp4", range(241, 246), range(450, 493)),
        ("single_face.mp4", range(1), range(60, 61)),  # a smile opens
        ("webcam_closed_mouth.mp4", range(1), range(765, 766)),  # speaks, opens wide, turns the head
    ],
)
def test_real_clips_are_cut_where_the_eye_cuts_them(name: str, starts: range, stops: range) -> None:
    path = sample(name)
    if path is None:
        pytest.skip("no real clips here")
    with path.open("rb") as file, Video(file) as video:
        pictures = (np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8) for picture in video.pictures())
        _, run = follow(pictures)
    assert run is not None
    assert run.start in starts
    assert run.stop in stops
