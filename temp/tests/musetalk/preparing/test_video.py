"""Reading videos: 25 fps from any rate, upright, bit-exact where possible, and nothing that a hostile file can reach."""

import io
import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import PORTRAIT, Clip, artist, sample, write_clip, write_sound_only
from numpy.typing import NDArray

from gpuserver.errors import Unreadable, VideoLimitExceeded
from gpuserver.musetalk.preparing.video import Limits, Video, at_25_fps


def read(path: Path, limits: Limits | None = None) -> list[NDArray[np.uint8]]:
    with path.open("rb") as file, Video(file, limits) as video:
        return list(video.pictures())


def rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("fps", [10, 24000 / 1001, 25, 30, 50, 59.94, 120])
def test_any_constant_rate_becomes_25_without_drift(fps: float) -> None:
    times = [index / fps for index in range(round(20 * fps))]
    shown = list(at_25_fps((t, t) for t in times))
    assert len(shown) == int(times[-1] * 25 + 0.5) + 1
    # A picture is shown at the tick nearest to its time, or fills the gap that a slower source leaves.
    late = [tick / 25 - t for tick, t in enumerate(shown)]
    assert min(late) >= -0.0201
    assert max(late) <= 0.0201 + max(0, 1 / fps - 1 / 25)


def test_25_fps_with_rounded_times_keeps_every_picture_once() -> None:
    times = [round(index / 25 + (index % 3 - 1) * 0.004, 3) for index in range(250)]
    times[0] = 0.0
    assert list(at_25_fps((t, index) for index, t in enumerate(times))) == list(range(250))


def test_a_variable_rate_repeats_what_is_shown() -> None:
    assert list(at_25_fps([(0, "a"), (0.2, "b"), (0.24, "c")])) == ["a"] * 5 + ["b", "c"]


def test_times_that_go_back_are_skipped() -> None:
    assert list(at_25_fps([(0, "a"), (0.08, "b"), (0.0, "x"), (0.12, "c")])) == ["a", "a", "b", "c"]


def test_nothing_comes_from_nothing() -> None:
    assert list(at_25_fps([])) == []


def test_a_clip_of_variable_rate_is_shown_at_its_own_times(tmp_path: Path) -> None:
    clip = Clip(sway=0.3)
    times = [0.0, 0.04, 0.4, 0.44, 0.48, 1.0]
    pictures = read(write_clip(tmp_path / "v.mp4", clip, times=times))
    draw = artist(clip)
    assert len(pictures) == 26
    for tick, moment in ((5, 0.04), (9, 0.04), (10, 0.4), (24, 0.48), (25, 1.0)):
        assert np.abs(rgb(pictures[tick]).astype(int) - draw(moment)).mean() < 6, tick


# ---------------------------------------------------------------- pictures


def test_a_picture_that_fits_keeps_every_bit(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=0.4))
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray() for frame in container.decode(video=0)]
    pictures = read(path)
    assert len(pictures) == len(stored) == 10
    assert all(np.array_equal(a, b) for a, b in zip(pictures, stored, strict=True))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_marks_are_honoured(tmp_path: Path, rotation: int) -> None:
    upright = read(write_clip(tmp_path / "0.mp4", Clip(seconds=0.2)))
    turned = read(write_clip(tmp_path / "r.mp4", Clip(seconds=0.2, rotation=rotation)))
    assert turned[0].shape == upright[0].shape == (360, 320)
    assert np.abs(rgb(turned[3]).astype(int) - rgb(upright[3])).mean() < 4


def test_a_large_picture_is_scaled_to_1280(tmp_path: Path) -> None:
    assert read(write_clip(tmp_path / "l.mp4", Clip(seconds=0.08, width=1920, height=1080)))[0].shape == (1080, 1280)


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    assert read(write_clip(tmp_path / "o.mp4", Clip(seconds=0.08, width=321, height=241, pixel_format="yuv444p")))[0].shape == (360, 320)


def test_full_range_becomes_limited_range(tmp_path: Path) -> None:
    clip = Clip(seconds=0.08, codec="mjpeg", pixel_format="yuvj420p", options={"qmin": "1", "qmax": "2"})
    picture = read(write_clip(tmp_path / "j.mkv", clip))[0]
    assert np.abs(rgb(picture).astype(int) - artist(clip)(0)).mean() < 4


def test_real_clips_have_the_frames_that_their_length_says() -> None:
    clips = {"hand_over_mouth.mp4": 492, "single_face.mp4": 60, "webcam_closed_mouth.mp4": 765}
    present = {name: path for name in clips if (path := sample(name)) is not None}
    if not present:
        pytest.skip("no real clips here")
    for name, path in present.items():
        assert len(read(path)) == clips[name], name


# ---------------------------------------------------------------- bad input


def faststart(path: Path) -> bytes:
    """The clip as an MP4 whose index comes first, so that a part of it can be opened."""
    buffer = io.BytesIO()
    with av.open(str(path)) as source, av.open(buffer, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a video at all\n" * 99, os.urandom(5000), PORTRAIT.read_bytes(), b"ffconcat version 1.0\nfile '/etc/passwd'\n"],
    ids=["empty", "text", "noise", "picture", "concat"],
)
def test_what_is_no_video_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        list(Video(io.BytesIO(content)).pictures())


def test_a_playlist_reaches_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n".encode()
        with pytest.raises(Unreadable):
            list(Video(io.BytesIO(playlist)).pictures())
        with pytest.raises(BlockingIOError):
            server.accept()


def test_sound_without_pictures_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="no video track"):
        read(write_sound_only(tmp_path / "s.mp4"))


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # the index at the end is lost
    with pytest.raises(Unreadable):
        read(path)


def test_a_file_cut_after_its_index_is_unreadable(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mkv", Clip(seconds=2))
    whole = path.read_bytes()
    assert len(read(path)) == 50
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unreadable, match="not complete"):
        read(path)


def test_a_fragmented_video_is_read(tmp_path: Path) -> None:
    data = faststart(write_clip(tmp_path / "c.mp4", Clip(seconds=1)))
    assert len(list(Video(io.BytesIO(data)).pictures())) == 25


def test_only_the_first_seconds_of_a_long_video_are_used(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=2))
    with path.open("rb") as file, Video(file, Limits(used_seconds=1)) as video:
        assert len(list(video.pictures())) == 25
        assert video.cut_short


def test_a_gap_of_hours_does_not_grow(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=1), times=[0.0, 0.04, 500.0])
    with path.open("rb") as file, Video(file) as video:
        assert len(list(video.pictures())) == 2
        assert video.cut_short


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        (Limits(seconds=0.5), "at most 0 s|at most 1 s"),
        (Limits(pixels=100 * 100), "more than 10000 pixels"),
    ],
    ids=["seconds", "pixels"],
)
def test_a_limit_is_named(tmp_path: Path, limits: Limits, names: str) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=1))
    with pytest.raises(VideoLimitExceeded, match=names):
        read(path, limits)


def test_too_many_pictures_per_second_are_refused_whatever_the_header_says(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=1, fps=Fraction(100)))
    assert len(read(path, Limits(fps=120))) == 26
    with pytest.raises(VideoLimitExceeded, match="more than 40 pictures per second"):
        read(path, Limits(fps=40))
