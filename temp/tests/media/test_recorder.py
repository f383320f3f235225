"""Recordings: what is in the film of a session, and what ends one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fakes import CROP_LUMA, fake_avatar, fake_crop, mouth_luma

from gpuserver.domain import SAMPLES_PER_FRAME, Avatar, Generation, Pcm, TalkingFrame
from gpuserver.errors import Conflict, DiskFull, NotFound, TooManyJobs
from gpuserver.media import recorder as recorder_module
from gpuserver.media.film import FilmWriter
from gpuserver.media.playout import Playout
from gpuserver.media.recorder import Recorder
from gpuserver.pipeline.subscription import Subscription


class FakeSession:
    """A session whose clock the test turns."""

    def __init__(self, name: str = "one") -> None:
        self.session_id = name
        self.avatar: Avatar = fake_avatar(40)
        self.stage = Playout(self.avatar, lambda: 0.0)
        self._subscriptions: list[Subscription] = []
        self._ticks = 0
        self.shown: list[np.ndarray] = []

    def subscribe(self) -> Subscription:
        self._subscriptions.append(Subscription(self._subscriptions.remove))
        return self._subscriptions[-1]

    def end(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close("deleted")

    @property
    def listeners(self) -> int:
        return len(self._subscriptions)

    def pass_time(self, ticks: int) -> None:
        self._ticks += ticks
        self.shown.append(self.stage.tick(self._ticks - 1).picture)

    async def hum(self, ticks: int) -> None:
        """Speak: a tone, with a bright mouth."""
        generation, time = Generation(1), np.arange(SAMPLES_PER_FRAME)
        tone = (8000 * np.sin(2 * np.pi * 200 / 48_000 * time)).astype(np.int16)
        for _ in range(ticks):
            position = self.stage.book(generation)
            frame = self.avatar.frame_at(position)
            await self.stage.put(TalkingFrame(generation, position, frame, fake_crop(frame), tone))
            self.pass_time(1)


def contents(film: Path) -> tuple[list[np.ndarray], Pcm]:
    """The pictures (I420) and the sound of a film."""
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(film)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return pictures, (sound * 32767).astype(np.int16)


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(tmp_path / "records")
    yield recorder
    await recorder.aclose()


async def test_a_film_shows_and_sounds_like_the_time_between_start_and_stop(recorder: Recorder) -> None:
    session = FakeSession()
    session.pass_time(7)
    await recorder.start(session, "12")
    for _ in range(5):
        session.pass_time(1)
    await session.hum(10)
    for _ in range(5):
        session.pass_time(1)
    recorded = await recorder.stop(session)
    assert recorder.film("12") == recorded.path
    assert recorded.seconds == pytest.approx(0.8)
    pictures, sound = contents(recorded.path)
    assert len(pictures) == 20
    filmed, shown = (np.array([mouth_luma(picture) for picture in each]) for each in (pictures, session.shown[1:]))
    assert np.abs(filmed - shown).max() < 30  # H.264
    assert shown.max() == CROP_LUMA
    audible = np.flatnonzero(np.abs(sound) > 1000) / SAMPLES_PER_FRAME
    assert audible[0] == pytest.approx(5, abs=0.6)  # AAC begins with 21 ms of its own
    assert audible[-1] == pytest.approx(15, abs=0.6)
    assert session.listeners == 0


async def test_time_that_nobody_watched_is_a_still_in_the_film(recorder: Recorder) -> None:
    session = FakeSession()
    await recorder.start(session, "12")
    session.pass_time(1)
    session.pass_time(50)
    assert (await recorder.stop(session)).seconds == pytest.approx(51 * 0.04)


async def test_the_end_of_the_session_ends_its_film(recorder: Recorder) -> None:
    session = FakeSession()
    await recorder.start(session, "12")
    session.pass_time(5)
    session.end()
    await recorder.aclose()
    assert len(contents(recorder.film("12"))[0]) == 5


async def test_a_second_start_changes_nothing_and_a_second_film_replaces_the_first(recorder: Recorder) -> None:
    session = FakeSession()
    for ticks in (3, 6):
        await recorder.start(session, "12")
        await recorder.start(session, "12")
        session.pass_time(ticks)
        await recorder.stop(session)
    assert len(contents(recorder.film("12"))[0]) == 6


async def test_a_film_that_is_too_long_is_cut_short(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MOST_SECONDS", 1)
    session = FakeSession()
    await recorder.start(session, "12")
    session.pass_time(1)
    session.pass_time(60)
    recorded = await recorder.stop(session)
    assert (recorded.cut_short, recorded.seconds) == (True, 1.0)


async def test_an_encoder_that_falls_behind_leaves_out_pictures_and_no_sound(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "PICTURES_WAITING", 0)
    session = FakeSession()
    await recorder.start(session, "12")
    session.pass_time(1)
    await session.hum(20)
    recorded = await recorder.stop(session)
    assert recorded.left_out > 15
    pictures, sound = contents(recorded.path)
    assert len(pictures) == 21
    assert len(np.unique([mouth_luma(picture) for picture in pictures])) <= 3  # H.264's own doing
    assert (np.abs(sound) > 1000).sum() > 15 * SAMPLES_PER_FRAME


async def test_stopping_what_was_not_started_is_a_conflict(recorder: Recorder) -> None:
    with pytest.raises(Conflict):
        await recorder.stop(FakeSession())
    with pytest.raises(NotFound):
        recorder.film("12")


async def test_a_film_of_no_time_is_none(recorder: Recorder) -> None:
    session = FakeSession()
    await recorder.start(session, "12")
    with pytest.raises(Conflict, match="Nothing was shown"):
        await recorder.stop(session)


async def test_only_a_few_sessions_are_recorded_at_once(recorder: Recorder) -> None:
    sessions = [FakeSession(str(number)) for number in range(recorder_module.MOST_AT_ONCE + 1)]
    for session in sessions[:-1]:
        await recorder.start(session, session.session_id)
    with pytest.raises(TooManyJobs):
        await recorder.start(sessions[-1], "last")
    for session in sessions[:-1]:
        session.pass_time(1)
    await asyncio.gather(*(recorder.stop(session) for session in sessions[:-1]))
    await recorder.start(sessions[-1], "last")
    sessions[-1].end()


async def test_a_film_that_is_being_completed_is_neither_cleared_away_nor_written_over(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    completing, may_complete = threading.Event(), threading.Event()

    class Slow(FilmWriter):
        def __exit__(self, *error: Any) -> None:
            completing.set()
            assert may_complete.wait(10)
            super().__exit__(*error)

    monkeypatch.setattr(recorder_module, "FilmWriter", Slow)
    session, other = FakeSession("one"), FakeSession("two")
    await recorder.start(session, "1")
    session.pass_time(3)
    stopping = asyncio.create_task(recorder.stop(session))
    await asyncio.to_thread(completing.wait, 10)
    await recorder.start(other, "2")
    for meddle in (recorder.start(session, "1"), recorder.stop(session)):
        with pytest.raises(Conflict):
            await meddle
    may_complete.set()
    film = await stopping
    assert len(contents(film.path)[0]) == 3
    await recorder.start(session, "1")
    session.end()
    other.end()


async def test_a_disk_without_room_refuses_the_recording_and_holds_nothing(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MOST_BYTES", 1 << 60)
    session = FakeSession()
    with pytest.raises(DiskFull):
        await recorder.start(session, "12")
    assert session.listeners == 0
    monkeypatch.undo()
    await recorder.start(session, "12")
    session.end()


async def test_old_films_and_what_a_killed_server_left_go(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MOST_KEPT", 1)
    folder = tmp_path / "records"
    folder.mkdir()
    for name in ("1.mp4", ".2.mp4.part"):
        (folder / name).write_bytes(b"old")
    session = FakeSession()
    await recorder.start(session, "12")
    session.pass_time(3)
    await recorder.stop(session)
    assert [path.name for path in folder.iterdir()] == ["12.mp4"]
