"""From a video to a film of its face talking, without a server. Under pytest, or alone:

PYTHONPATH=$PWD python3 temp/tests/test_musetalk.py [VIDEO]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Clip, write_clip

from bench.lips import compare, decoded, lip_gaps
from gpuserver.config import Settings
from gpuserver.domain import FRAME_SECONDS, Avatar, TimedViseme
from gpuserver.errors import AvatarExists, GpuserverError, NoUsableFace
from gpuserver.media.film import FilmReport, render_film
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.voice_hibari import HibariVoice

AVATAR_ID = "test_teacher"
TEXT = "Good morning. Bob and Mary make a map of the moon."
CLIP = Clip(seconds=3, width=512, height=512, zoom=1.5)
LEAST_MOVEMENT = 0.2  # of the mouth's width, while speaking
MOST_LAG = 0.040  # seconds to either side, EBU R37


def make_manager(folder: Path) -> AvatarManager:
    manager = AvatarManager(Settings(_env_file=None, avatars_dir=folder / "avatars"))
    manager.start()
    return manager


def film(avatar: Avatar, out: Path, text: str = TEXT) -> FilmReport:
    """Let the avatar say the text; the same pipeline as in a call, without its clock."""

    async def work() -> FilmReport:
        voice = HibariVoice()
        try:
            return await render_film(avatar, WarpEngine(), voice, text, out)
        finally:
            await voice.aclose()

    return asyncio.run(work())


def lips(path: Path, visemes: Sequence[TimedViseme]) -> tuple[float, float, float]:
    """How far the lips move (mouth widths), how late they are (seconds) and how well they follow (correlation), seen in the film."""
    gaps, width = lip_gaps(decoded(path))
    figures = compare(gaps, width, visemes)
    return float(np.nanmax(gaps) - np.nanmin(gaps)), figures.lag, figures.correlation


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "teacher.mp4", CLIP)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> AvatarManager:
    """With the avatar of the clip."""
    manager = make_manager(tmp_path_factory.mktemp("data"))
    manager.create_from_file(AVATAR_ID, clip)
    return manager


@pytest.fixture(scope="module")
def filmed(manager: AvatarManager, tmp_path_factory: pytest.TempPathFactory) -> FilmReport:
    return film(load_avatar(manager.folder(AVATAR_ID)), tmp_path_factory.mktemp("film") / "answer.mp4")


def test_the_video_becomes_an_avatar_that_is_listed(manager: AvatarManager) -> None:
    assert manager.ids() == [AVATAR_ID]
    info = manager.info(AVATAR_ID)
    assert (info.frames, info.fps, info.width, info.height) == (75, 25, 512, 512)
    assert not info.mock


def test_an_id_is_given_once(manager: AvatarManager, clip: Path) -> None:
    with pytest.raises(AvatarExists):
        manager.create_from_file(AVATAR_ID, clip)


def test_a_video_without_a_face_makes_no_avatar(manager: AvatarManager, tmp_path: Path) -> None:
    nobody = write_clip(tmp_path / "nobody.mp4", Clip(seconds=1, faceless=((0.0, 1.0),)))
    with pytest.raises(NoUsableFace):
        manager.create_from_file("nobody", nobody)
    assert manager.ids() == [AVATAR_ID]


def test_the_film_has_a_picture_and_its_sound_for_every_40_ms(filmed: FilmReport) -> None:
    with av.open(str(filmed.path)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    with av.open(str(filmed.path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert pictures == filmed.frames
    assert abs(len(sound) / 48_000 - filmed.frames * FRAME_SECONDS) < 0.1  # the codec rounds to its own blocks
    assert filmed.text.split() == TEXT.split()
    assert 0.02 < np.abs(sound).max() <= 1


def test_the_lips_in_the_film_follow_the_words(filmed: FilmReport) -> None:
    movement, lag, correlation = lips(filmed.path, filmed.visemes)
    assert movement > LEAST_MOVEMENT
    assert abs(lag) <= MOST_LAG
    assert correlation > 0.75


def main(video: Path | None) -> int:
    """Prints what happens, line by line; 0 if the face talks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = video or write_clip(folder / "teacher.mp4", CLIP)
        manager = make_manager(folder)
        try:
            print(f"create  {manager.create_from_file(AVATAR_ID, source).message}: {AVATAR_ID} from {source.name}")
            info = manager.info(AVATAR_ID)
            print(f"list    {manager.ids()}: {info.frames} frames, {info.seconds:.1f} s, {info.width}x{info.height}")
            made = film(load_avatar(manager.folder(AVATAR_ID)), folder / "answer.mp4")
            print(f"render  {made.path.name}: {made.frames} frames, {made.seconds:.1f} s: {made.text}")
            movement, lag, correlation = lips(made.path, made.visemes)
        except GpuserverError as error:
            print(f"FAILED  {error.detail} {error.advice}")
            return 1
        print(f"lips    move over {movement:.2f} of the mouth's width, {lag * 1000:+.0f} ms after the sound, correlation {correlation:.2f}")
        works = movement > LEAST_MOVEMENT and abs(lag) <= MOST_LAG
        print("OK" if works else "FAILED  the lips do not follow the words")
        return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
