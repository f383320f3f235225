"""Whatever a teacher, or somebody else, may upload: it becomes an avatar, or it is refused with what to do, soon and within limits."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, artist, portrait, write_clip, write_video
from numpy.typing import NDArray

from gpuserver.config import Settings
from gpuserver.errors import DiskFull, GpuserverError, InvalidInput, NoUsableFace, Unreadable, VideoLimitExceeded, VideoPathForbidden
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.avatars.disk_room import MARGIN_BYTES
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.musetalk.preparing.video import Video
from gpuserver.wire import AvatarInfo, CreateAvatar


def manager_in(folder: Path, *video_dirs: Path) -> AvatarManager:
    manager = AvatarManager(Settings(_env_file=None, avatars_dir=folder / "avatars", video_dirs=video_dirs))
    manager.start()
    return manager


def made_of(folder: Path, video: Path) -> AvatarInfo:
    manager = manager_in(folder)
    manager.create_from_file("a", video)
    return manager.info("a")


def picture_at(path: Path, index: int) -> NDArray[np.uint8]:
    with path.open("rb") as file, Video(file) as video:
        pictures = list(video.pictures())
    return np.asarray(cv2.cvtColor(pictures[index], cv2.COLOR_YUV2RGB_I420), np.uint8)


# ---------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("hevc.mp4", "libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none:crf=18"}),
        ("prores.mov", "prores_ks", "yuv422p10le", {}),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime", "crf": "20"}),
        ("vp8.webm", "libvpx", "yuv420p", {"cpu-used": "8", "deadline": "realtime", "b": "2M"}),
        ("film.gif", "gif", "rgb8", {}),
        ("motion.avi", "mjpeg", "yuvj420p", {}),
    ],
)
def test_videos_of_every_usual_kind_are_read(tmp_path: Path, name: str, codec: str, pixel_format: str, options: dict[str, str]) -> None:
    clip = Clip(seconds=0.4, codec=codec, pixel_format=pixel_format, options=options)
    path = write_clip(tmp_path / name, clip)
    shown, drawn = picture_at(path, 5).astype(int), artist(clip)(0.2)
    assert np.abs(shown - drawn).mean() < (16 if codec == "gif" else 6)  # 256 colours


@pytest.mark.parametrize(
    "clip",
    [Clip(seconds=1.2, fps=Fraction(240)), Clip(seconds=1.2, rotation=90), Clip(seconds=1.2, rotation=270, width=240, height=320)],
    ids=["240 fps", "rotated", "portrait format"],
)
def test_unusual_videos_become_avatars(tmp_path: Path, clip: Clip) -> None:
    info = made_of(tmp_path, write_clip(tmp_path / "c.mp4", clip))
    assert (info.width, info.height) == (clip.width, clip.height)
    assert 29 <= info.frames <= 31


def test_a_variable_frame_rate_becomes_25(tmp_path: Path) -> None:
    times = [*np.arange(0, 0.6, 1 / 60), *np.arange(0.6, 1.6, 1 / 12)]
    assert made_of(tmp_path, write_clip(tmp_path / "c.mp4", Clip(seconds=2), times=[float(t) for t in times])).frames in {38, 39, 40}


def test_of_two_faces_the_larger_is_used_and_the_other_reported(tmp_path: Path) -> None:
    clip = Clip(seconds=1.2, width=640, height=360)
    small = cv2.resize(portrait()[20:260, 100:340], (280, 280))
    large = cv2.resize(portrait()[20:260, 100:340], (340, 340))
    scene = np.full((360, 640, 3), 120, np.uint8)
    scene[40:320, 10:290], scene[10:350, 295:635] = small, large
    write_video(tmp_path / "c.mp4", (scene for _ in clip.times), clip, clip.times)
    manager = manager_in(tmp_path)
    manager.create_from_file("a", tmp_path / "c.mp4")
    quality = manager.info("a").quality
    assert quality.frames_with_other_faces == quality.source_frames == 30
    assert any("another face for 1.2 s" in line for line in quality.advice)
    assert load_avatar(manager.folder("a")).frames[0].face.left > 295


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda picture: cv2.GaussianBlur(picture, (0, 0), 4), "The face is blurred"),
        (lambda picture: picture // 4, "The face is dark"),
        (lambda picture: 235 + picture // 13, "The face is overexposed"),
        (lambda picture: picture, "closed lips"),  # the portrait smiles
        (lambda picture: picture[::-1, ::-1], "The face is upside down"),
        (lambda picture: picture.transpose(1, 0, 2)[::-1], "The face lies on its side"),
    ],
    ids=["blurred", "dark", "bright", "lips", "upside-down", "sideways"],
)
def test_the_report_says_what_to_do_better(tmp_path: Path, spoil: object, sentence: str) -> None:
    assert callable(spoil)
    cv2.imwrite(str(tmp_path / "p.png"), np.asarray(spoil(portrait()))[:, :, ::-1])
    advice = made_of(tmp_path, tmp_path / "p.png").quality.advice
    assert any(sentence in line for line in advice), advice


def test_a_head_that_moves_where_the_loop_turns_is_reported(tmp_path: Path) -> None:
    quality = made_of(tmp_path, write_clip(tmp_path / "c.mp4", Clip(seconds=1.2, sway=0.5))).quality
    assert quality.loop_jerk > 0.5
    assert any("where the loop turns" in line for line in quality.advice)


# ---------------------------------------------------------------- what is refused


def test_a_video_of_ten_hours_is_refused_by_its_header(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", Clip(), times=[0.0, 0.04, 36_000.0])
    assert path.stat().st_size < 50_000
    with pytest.raises(VideoLimitExceeded, match="36000 s long"):
        made_of(tmp_path, path)


def test_a_video_that_claims_20000_x_20000_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    clip = Clip(seconds=0.4, codec="mjpeg", pixel_format="yuvj420p", options={})
    path = write_clip(tmp_path / "huge.avi", clip)
    # Every JPEG of it says so (SOF0: marker, length, precision, height, width), and the header of the stream.
    real, claimed = struct.pack(">HH", clip.height, clip.width), struct.pack(">HH", 20_000, 20_000)
    data = path.read_bytes()
    assert data.count(b"\xff\xc0\x00\x11\x08" + real) == 10
    data = data.replace(b"\xff\xc0\x00\x11\x08" + real, b"\xff\xc0\x00\x11\x08" + claimed)
    path.write_bytes(data.replace(struct.pack("<II", clip.width, clip.height), struct.pack("<II", 20_000, 20_000)))
    with pytest.raises((VideoLimitExceeded, Unreadable)):
        made_of(tmp_path, path)


def test_a_video_of_one_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoUsableFace, match=r"for 0\.0 s only"):
        made_of(tmp_path, write_clip(tmp_path / "one.mp4", Clip(seconds=0.04)))


def test_nothing_but_files_under_video_dirs_is_opened(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    os.mkfifo(videos / "fifo.mp4")
    (videos / "zero.mp4").symlink_to("/dev/zero")
    (videos / "out").symlink_to("/etc")
    manager = manager_in(tmp_path, videos)
    refused: list[tuple[Path, type[GpuserverError]]] = [
        (Path("/dev/zero"), VideoPathForbidden),
        (videos / "zero.mp4", VideoPathForbidden),
        (videos / "out" / "passwd", VideoPathForbidden),
        (videos / "fifo.mp4", InvalidInput),
    ]
    began = time.monotonic()
    for path, error in refused:
        with pytest.raises(error):
            manager.create(CreateAvatar(avatar_id="a", video_path=str(path)))
    with pytest.raises(InvalidInput):  # allowed by a careless operator, and still no file
        manager_in(tmp_path, Path("/dev")).create(CreateAvatar(avatar_id="a", video_path="/dev/zero"))
    assert time.monotonic() - began < 10  # nobody waited for a FIFO's writer


# ---------------------------------------------------------------- a full disk


@contextmanager
def disk_of(kilobytes: int, folder: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system; a named fake covers the error in test_avatar_manager.py")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("kilobytes", "margin", "message"),
    [
        (3_000, MARGIN_BYTES, "256 MB must stay so"),
        (3_000, 0, "0 MB must stay so"),  # the pictures do not fit
        (5_700, 0, "became full while"),  # they do, the 187 kB of landmarks behind them do not: the write itself fails
    ],
)
def test_a_full_disk_is_said_so_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kilobytes: int, margin: int, message: str
) -> None:
    monkeypatch.setattr(avatar_manager, "PreparationRequest", partial(PreparationRequest, margin_bytes=margin))
    video = write_clip(tmp_path / "c.mp4", Clip(seconds=2))  # 50 pictures, 5.76 MB
    with disk_of(kilobytes, tmp_path / "small") as small:
        manager = manager_in(small)
        with pytest.raises(DiskFull, match=message) as caught:
            manager.create_from_file("a", video)
        assert caught.value.status == 507
        assert manager.ids() == []
        assert list((small / "avatars" / ".versions").iterdir()) == []
        manager.start()
