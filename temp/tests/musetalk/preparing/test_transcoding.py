"""What PyAV may not read goes through ffmpeg, where there is one, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import Clip, write_clip

from gpuserver.errors import Unreadable
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.musetalk.preparing.preparation_job import run_preparation
from gpuserver.musetalk.preparing.transcoding import readable
from gpuserver.musetalk.preparing.video import Video
from gpuserver.wire import AvatarInfo


def script(path: Path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def fake_ffmpeg(tmp_path: Path) -> str:
    """Takes what follows a line of text in its input for the video, and notes its arguments."""
    return script(tmp_path / "ffmpeg", f'echo "$@" > {tmp_path}/arguments; env > {tmp_path}/environment; tail -n +2 > /dev/stdout')


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A video in a format that only the fake ffmpeg knows."""
    clip = write_clip(tmp_path / "clip.mp4", Clip(seconds=2.0))
    path = tmp_path / "clip.foreign"
    path.write_bytes(b"A format of its own\n" + clip.read_bytes())
    return path


def test_a_video_that_can_be_read_never_meets_ffmpeg(tmp_path: Path, fake_ffmpeg: str) -> None:
    with write_clip(tmp_path / "clip.mp4", Clip(seconds=1.0)).open("rb") as file:
        assert readable(file, fake_ffmpeg, tmp_path) is file
        assert file.tell() == 0
    assert not (tmp_path / "arguments").exists()


def test_a_video_that_cannot_be_read_is_converted(tmp_path: Path, foreign: Path, fake_ffmpeg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    with foreign.open("rb") as file, readable(file, fake_ffmpeg, tmp_path) as converted, Video(converted) as video:
        assert len(list(video.pictures())) == 50
    arguments = (tmp_path / "arguments").read_text()
    assert "-protocol_whitelist file " in arguments
    assert not {"concat", "hls", "dash", "image2"} & set(arguments.replace(",", " ").split()), "a list of files would open others"
    assert "a secret" not in (tmp_path / "environment").read_text()


def test_without_ffmpeg_the_reason_is_the_reader_s_own(tmp_path: Path, foreign: Path) -> None:
    with foreign.open("rb") as file, pytest.raises(Unreadable, match="not a video of a known format"):
        readable(file, None, tmp_path)


@pytest.mark.parametrize("lines", ["exit 1", "exit 0", "echo half of it; exit 1", "kill -9 $$"])
def test_what_ffmpeg_cannot_read_is_unreadable_and_leaves_nothing(tmp_path: Path, foreign: Path, lines: str) -> None:
    before = set(tmp_path.iterdir())
    ffmpeg = script(tmp_path / "ffmpeg", lines)
    with foreign.open("rb") as file, pytest.raises(Unreadable):
        readable(file, ffmpeg, tmp_path)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "ffmpeg"}


def test_a_foreign_video_becomes_an_avatar(tmp_path: Path, foreign: Path, fake_ffmpeg: str) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    with foreign.open("rb") as file:
        info: AvatarInfo = run_preparation(PreparationRequest(folder=folder, avatar_id="a", ffmpeg=fake_ffmpeg), file)
    assert info.quality.source_frames == 50
    assert not [path for path in folder.iterdir() if path.suffix not in {".json", ".i420", ".npy", ".jpg"}]


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    secret = write_clip(tmp_path / "secret.mp4", Clip(seconds=1.0))
    playlist = tmp_path / "list.txt"
    playlist.write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    with playlist.open("rb") as file, pytest.raises(Unreadable):
        readable(file, "/usr/bin/ffmpeg" if Path("/usr/bin/ffmpeg").exists() else script(tmp_path / "ffmpeg", "exit 1"), tmp_path)
