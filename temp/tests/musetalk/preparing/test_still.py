"""Still pictures: read upright whatever made them, refused before they cost anything, and given a life that stays gentle."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from clips import Rgb, portrait, portrait_face
from numpy.typing import NDArray

from gpuserver.domain import loop_index
from gpuserver.errors import Unreadable, VideoLimitExceeded
from gpuserver.musetalk.preparing.eyelids import Eyelids
from gpuserver.musetalk.preparing.life import FRAMES, closures, living
from gpuserver.musetalk.preparing.still import SIDE, is_still, read_still
from gpuserver.musetalk.preparing.sway import Sway
from gpuserver.musetalk.vision.person import PersonFinder

EYES = {"left": (33, 133), "right": (362, 263)}


def encoded(picture: Rgb, kind: str) -> bytes:
    channels = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return cv2.imencode(kind, cv2.cvtColor(picture, channels))[1].tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that has nothing but the orientation (tag 0x0112)."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any data."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9999))), (b"IEND", b""))
    body = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(int) - b).mean())


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_a_picture_of_any_kind_is_read(kind: str) -> None:
    data = encoded(portrait(), kind)
    assert is_still(io.BytesIO(data))
    assert difference(read_still(io.BytesIO(data)), portrait()) < 3


@pytest.mark.parametrize("head", [b"", b"RIFF1234AVI ", b"\0\0\0\x18ftypmp42", b"GIF89a"])
def test_a_video_is_no_still(head: bytes) -> None:
    file = io.BytesIO(head)
    assert not is_still(file)
    assert file.tell() == 0


def test_all_eight_orientations_of_a_camera_are_honoured() -> None:
    upright = portrait()[:, :300]
    # How a camera stores the upright picture when it writes the orientation.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright[:, ::-1], -1),
        8: np.rot90(upright, -1),
    }
    for orientation, picture in stored.items():
        data = with_orientation(encoded(np.ascontiguousarray(picture), ".jpg"), orientation)
        assert difference(read_still(io.BytesIO(data)), upright) < 4, orientation


def test_a_large_odd_picture_becomes_smaller_and_even() -> None:
    large = cv2.resize(portrait(), (1501, 2003))
    assert read_still(io.BytesIO(encoded(np.asarray(large, np.uint8), ".jpg"))).shape == (SIDE, 718, 3)


def test_what_is_transparent_becomes_a_light_wall() -> None:
    layers = np.dstack([portrait(), np.full((512, 512), 255, np.uint8)])
    layers[:200, :100] = (255, 0, 255, 0)
    picture = read_still(io.BytesIO(encoded(layers, ".png")))
    assert (picture[:200, :100] == 200).all()
    assert np.array_equal(picture[200:], portrait()[200:])


def test_a_picture_of_20000_x_20000_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(VideoLimitExceeded, match="64 million"):
        read_still(io.BytesIO(png_header(20_000, 20_000)))


@pytest.mark.parametrize(
    "data",
    [b"\xff\xd8\xff\xe0 no picture", encoded(portrait(), ".jpg")[:400], encoded(portrait()[:40, :40], ".png"), b"\x89PNG\r\n\x1a\n"],
    ids=["noise", "cut", "tiny", "head only"],
)
def test_what_shows_nothing_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_still(io.BytesIO(data))


def test_the_pictures_of_an_iphone_are_refused_with_what_to_do() -> None:
    file = io.BytesIO(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(999))
    assert is_still(file)
    with pytest.raises(Unreadable) as caught:
        read_still(file)
    assert "JPEG" in caught.value.advice


# ---------------------------------------------------------------- blinking


def test_closed_eyes_show_neither_pupil_nor_white_and_the_rest_of_the_face_stays() -> None:
    face = portrait_face()
    eyelids = Eyelids(portrait(), face.landmarks)
    closed = eyelids.closed(1.0)
    changed = (closed != portrait()).any(axis=2)
    rows, columns = np.nonzero(changed)
    eyes = face.landmarks[[33, 133, 362, 263]]
    reach = 0.6 * np.linalg.norm(eyes[1] - eyes[0])
    assert columns.min() > eyes[:, 0].min() - reach / 2
    assert columns.max() < eyes[:, 0].max() + reach / 2
    assert rows.max() < eyes[:, 1].max() + reach / 2
    assert rows.min() > face.landmarks[[105, 334], 1].min() - 3  # the brows
    for eye, (outer, inner) in EYES.items():
        middle = face.landmarks[[outer, inner]].mean(axis=0).astype(int)
        pupil = portrait()[middle[1] - 4 : middle[1] + 2, middle[0] - 2 : middle[0] + 3]
        lid = closed[middle[1] - 4 : middle[1] + 2, middle[0] - 2 : middle[0] + 3]
        assert pupil.mean() < 100 < lid.mean(), eye


def test_eyes_close_steadily_and_open_eyes_are_the_picture_itself() -> None:
    source = portrait()
    eyelids = Eyelids(source, portrait_face().landmarks)
    assert eyelids.closed(0.0) is source
    changes = [difference(eyelids.closed(part), source) for part in (0.25, 0.5, 0.75, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_eyes_that_are_closed_do_not_blink() -> None:
    landmarks = portrait_face().landmarks.copy()
    for upper, lower in (
        (159, 145),
        (158, 153),
        (160, 144),
        (386, 374),
        (385, 380),
        (387, 373),
        (161, 163),
        (157, 154),
        (388, 390),
        (384, 381),
    ):
        landmarks[upper] = landmarks[lower]
    source = portrait()
    assert Eyelids(source, landmarks).closed(1.0) is source


def test_blinks_are_short_few_and_irregular() -> None:
    parts = closures()
    played = [parts[loop_index(position, FRAMES)] for position in range(4 * FRAMES)]
    starts = [index for index in range(1, len(played)) if played[index] > 0 and played[index - 1] == 0]
    assert 2 <= sum(part == 1 for part in parts) <= 4
    for start in starts[:-1]:
        length = next(index for index in range(start, len(played)) if played[index] == 0) - start
        assert 0.12 <= length / 25 <= 0.2
    pauses = np.diff(starts) / 25
    assert pauses.min() > 1
    assert pauses.max() < 4
    assert len(set(pauses[:5])) > 2


# ---------------------------------------------------------------- swaying


@pytest.fixture(scope="module")
def sway() -> Sway:
    return Sway(portrait_face().landmarks, PersonFinder().find(portrait()), 512, 512)


def test_the_head_moves_and_what_is_behind_stays(sway: Sway) -> None:
    moves = np.stack([sway.displacement(index / 20) for index in range(21)])
    nose = portrait_face().landmarks[1].astype(int)
    assert 2 < np.ptp(moves[:, nose[1], nose[0]], axis=0).max() < 8  # pixels, of a face of 95
    assert np.abs(moves[:, [0, -1]]).max() < 0.01  # nothing comes in over the border
    assert np.abs(moves[:, :, [0, -1]]).max() < 0.01
    assert np.abs(moves[:, :200, 400:]).max() < 0.5  # the straight edges of the rocket
    assert np.abs(np.gradient(moves, axis=(1, 2))[0]).max() < 0.12  # nothing folds


def test_the_loop_stands_still_where_it_turns_and_never_jerks(sway: Sway) -> None:
    moves = np.stack([sway.displacement(index / (FRAMES - 1))[::8, ::8] for index in range(FRAMES)])
    steps = np.abs(np.diff(moves, axis=0)).max(axis=(1, 2, 3))
    assert steps.max() < 0.25  # pixels per frame
    assert steps[[0, -1]].max() < 0.02


def test_the_points_of_the_face_move_with_it() -> None:
    face = portrait_face()
    frames = list(living(portrait(), face.landmarks, PersonFinder().find(portrait())))
    assert len(frames) == FRAMES
    source = cv2.cvtColor(frames[0][0], cv2.COLOR_YUV2RGB_I420)
    for picture, landmarks in frames[20::50]:
        shown = cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420)
        matrix = cv2.estimateAffinePartial2D(frames[0][1], landmarks)[0]
        moved = cv2.warpAffine(source, matrix, (512, 512))
        mouth = landmarks[[61, 291]].mean(axis=0).astype(int)
        window = np.s_[mouth[1] - 12 : mouth[1] + 12, mouth[0] - 25 : mouth[0] + 25]
        assert difference(shown[window], moved[window]) < difference(shown[window], source[window])
        assert difference(shown[window], moved[window]) < 4
