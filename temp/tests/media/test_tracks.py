"""The tracks of a connection, in virtual time: no drift, nothing slept over, lips and sound from the same tick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from moving_avatar import moving_avatar

from gpuserver.domain import Generation, Pcm
from gpuserver.media.bitrate import Bitrate
from gpuserver.media.clock import Pacer
from gpuserver.media.encoding import Encoding
from gpuserver.media.payloads import H264
from gpuserver.media.playout import PlayedFrame
from gpuserver.media.tracks import PictureTrack, SoundTrack

EPOCH = 1000.0


class VirtualClock:
    """Time passes only while somebody waits, or when a test says so."""

    def __init__(self, now: float = EPOCH):
        self.time = now

    def now(self) -> float:
        return self.time

    async def wait_until(self, deadline: float) -> None:
        self.time = max(self.time, deadline)


class NotedPlayout:
    """Always talks; notes which ticks and which pieces of sound it was asked for."""

    epoch = EPOCH

    def __init__(self) -> None:
        self.avatar = moving_avatar()
        self.silent_until = 0  # the first tick in which it talks
        self.ticks: list[int] = []
        self.pieces: list[int] = []

    def tick(self, number: int) -> PlayedFrame:
        self.ticks.append(number)
        picture = self.avatar.frame_at(number).picture.copy()
        generation = Generation(1) if number >= self.silent_until else None
        return PlayedFrame(number, number, picture, np.zeros(1920, np.int16), generation)

    def sound(self, piece: int) -> Pcm:
        self.pieces.append(piece)
        return np.full(960, piece % 1000 if piece >= 2 * self.silent_until else 0, np.int16)


@dataclass(slots=True)
class Tracks:
    picture: PictureTrack
    sound: SoundTrack
    clock: VirtualClock
    playout: NotedPlayout


@pytest.fixture
async def tracks() -> AsyncIterator[Callable[[float], Tracks]]:
    encoding = Encoding(1)

    def make(now: float = EPOCH) -> Tracks:
        clock, playout = VirtualClock(now), NotedPlayout()
        picture = PictureTrack(playout, clock)
        picture.begin(encoding.stream(playout.avatar, H264, Bitrate(clock.now)))
        return Tracks(picture, SoundTrack(playout, clock), clock, playout)

    yield make
    await encoding.aclose()


MakeTracks = Callable[[float], Tracks]


async def test_picture_n_is_due_at_the_epoch_plus_n_times_40_ms(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    for number in range(30):
        encoded = await made.picture.recv()
        assert encoded.timestamp == number * 3600
        assert encoded.payloads
        assert made.clock.time == pytest.approx(EPOCH + number * 0.04, abs=1e-9)


async def test_sound_comes_in_pieces_of_20_ms_with_time_stamps_in_samples(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    for piece in range(100):
        encoded = await made.sound.recv()
        assert encoded.timestamp == piece * 960
        assert len(encoded.payloads) == 1
        assert made.clock.time == pytest.approx(EPOCH + piece * 0.02, abs=1e-9)


async def test_picture_and_sound_of_a_tick_leave_together(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    for number in range(20):
        await made.picture.recv()
        await made.sound.recv()
        assert made.clock.time == pytest.approx(EPOCH + number * 0.04, abs=1e-9)
        assert (made.playout.ticks[-1], made.playout.pieces[-1]) == (number, 2 * number)
        await made.sound.recv()


async def test_a_connection_that_starts_late_starts_at_the_tick_that_is_due(tracks: MakeTracks) -> None:
    made = tracks(EPOCH + 10.005)
    assert (await made.sound.recv()).timestamp == 501 * 960
    assert (await made.picture.recv()).timestamp == 251 * 3600


async def test_ten_hours_do_not_drift() -> None:
    clock = VirtualClock()
    pacer = Pacer(clock, EPOCH, 0.02, 0.2)
    for _ in range(1000):
        await pacer.next()
    clock.time = EPOCH + 36_000
    assert await pacer.next() == 1_800_000
    assert clock.time == pytest.approx(EPOCH + 36_000, abs=1e-6)


async def test_a_late_picture_is_left_out_and_the_clock_holds(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    await made.picture.recv()
    made.clock.time += 0.2  # something kept the sender for five frames
    assert (await made.picture.recv()).timestamp == 5 * 3600
    assert made.playout.ticks == [0, 5]
    assert (await made.picture.recv()).timestamp == 6 * 3600
    assert made.clock.time == pytest.approx(EPOCH + 6 * 0.04, abs=1e-9)


async def test_a_picture_that_is_a_little_late_is_still_sent(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    await made.picture.recv()
    made.clock.time = EPOCH + 0.07
    assert (await made.picture.recv()).timestamp == 3600


async def test_late_sound_is_caught_up_without_a_gap(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    await made.sound.recv()
    made.clock.time += 0.15
    heard = [await made.sound.recv() for _ in range(10)]
    assert [encoded.timestamp for encoded in heard] == [960 * piece for piece in range(1, 11)]
    assert made.playout.pieces == list(range(11))


async def test_very_late_sound_is_left_out(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    await made.sound.recv()
    made.clock.time = EPOCH + 60
    assert (await made.sound.recv()).timestamp == 3000 * 960
    assert made.playout.pieces == [0, 3000]


async def test_settled_silence_leaves_as_one_packet_for_each_tick_until_somebody_speaks(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    made.playout.silent_until = 20
    stamps = [(await made.sound.recv()).timestamp for _ in range(30)]
    steps = np.diff(stamps) // 960
    assert list(steps) == [1] * 12 + [2] * 14 + [1] * 3
    assert stamps[26] == 40 * 960, "speech begins with the first piece of its tick"
    assert made.playout.pieces[:12] == list(range(12))
    assert made.clock.time == pytest.approx(EPOCH + stamps[-1] / 48_000, abs=1e-9)


async def test_a_stopped_track_ends(tracks: MakeTracks) -> None:
    made = tracks(EPOCH)
    made.picture.stop()
    made.sound.stop()
    with pytest.raises(MediaStreamError):
        await made.picture.recv()
    with pytest.raises(MediaStreamError):
        await made.sound.recv()
