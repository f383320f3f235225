"""The tracks of a connection, in virtual time: no drift, nothing slept over, lips and sound from the same tick."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from gpuserver.domain import Bytes2D, Pcm
from gpuserver.media.clock import Pacer
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


class NumberedPicture:
    def __init__(self, picture: Bytes2D):
        self.picture = picture


class NumberedPlayout:
    """Tick n shows n (mod 256); piece m of the sound is m (mod 1000)."""

    epoch = EPOCH

    def tick(self, number: int) -> NumberedPicture:
        return NumberedPicture(np.full((72, 64), number % 256, np.uint8))

    def sound(self, piece: int) -> Pcm:
        return np.full(960, piece % 1000, np.int16)


def tracks(now: float = EPOCH) -> tuple[PictureTrack, SoundTrack, VirtualClock]:
    clock, playout = VirtualClock(now), NumberedPlayout()
    return PictureTrack(playout, clock), SoundTrack(playout, clock), clock


async def test_picture_n_is_due_at_the_epoch_plus_n_times_40_ms() -> None:
    picture, _, clock = tracks()
    for number in range(100):
        frame = await picture.recv()
        assert frame.pts == number * 3600
        assert frame.time_base == Fraction(1, 90_000)
        assert clock.time == pytest.approx(EPOCH + number * 0.04, abs=1e-9)


async def test_sound_comes_in_pieces_of_20_ms_with_pts_in_samples() -> None:
    _, sound, clock = tracks()
    for piece in range(100):
        frame = await sound.recv()
        assert (frame.pts, frame.samples, frame.sample_rate) == (piece * 960, 960, 48_000)
        assert frame.layout.name == "mono"
        assert clock.time == pytest.approx(EPOCH + piece * 0.02, abs=1e-9)


async def test_picture_and_sound_of_a_tick_leave_together() -> None:
    picture, sound, clock = tracks()
    for number in range(20):
        shown = await picture.recv()
        heard = await sound.recv()
        assert clock.time == pytest.approx(EPOCH + number * 0.04, abs=1e-9)
        assert (shown.to_ndarray()[0, 0], heard.to_ndarray()[0, 0]) == (number, 2 * number)
        await sound.recv()


async def test_a_connection_that_starts_late_starts_at_the_tick_that_is_due() -> None:
    picture, sound, _ = tracks(now=EPOCH + 10.005)
    assert (await sound.recv()).pts == 501 * 960
    assert (await picture.recv()).pts == 251 * 3600


async def test_ten_hours_do_not_drift() -> None:
    clock = VirtualClock()
    pacer = Pacer(clock, EPOCH, 0.02, 0.2)
    for _ in range(1000):
        await pacer.next()
    clock.time = EPOCH + 36_000
    assert await pacer.next() == 1_800_000
    assert clock.time == pytest.approx(EPOCH + 36_000, abs=1e-6)


async def test_a_late_picture_is_left_out_and_the_clock_holds() -> None:
    picture, _, clock = tracks()
    await picture.recv()
    clock.time += 0.2  # something kept the sender for five frames
    late = await picture.recv()
    assert late.pts == 5 * 3600
    assert late.to_ndarray()[0, 0] == 5
    following = await picture.recv()
    assert following.pts == 6 * 3600
    assert clock.time == pytest.approx(EPOCH + 6 * 0.04, abs=1e-9)


async def test_a_picture_that_is_a_little_late_is_still_sent() -> None:
    picture, _, clock = tracks()
    await picture.recv()
    clock.time = EPOCH + 0.07
    assert (await picture.recv()).pts == 3600


async def test_late_sound_is_caught_up_without_a_gap() -> None:
    _, sound, clock = tracks()
    await sound.recv()
    clock.time += 0.15
    heard = [await sound.recv() for _ in range(10)]
    assert [frame.pts for frame in heard] == [960 * piece for piece in range(1, 11)]
    assert [frame.to_ndarray()[0, 0] for frame in heard] == list(range(1, 11))


async def test_very_late_sound_is_left_out() -> None:
    _, sound, clock = tracks()
    await sound.recv()
    clock.time = EPOCH + 60
    frame = await sound.recv()
    assert frame.pts == 3000 * 960
    assert frame.to_ndarray()[0, 0] == 3000 % 1000


async def test_a_stopped_track_ends() -> None:
    picture, sound, _ = tracks()
    picture.stop()
    sound.stop()
    with pytest.raises(MediaStreamError):
        await picture.recv()
    with pytest.raises(MediaStreamError):
        await sound.recv()


@pytest.mark.parametrize(("width", "height"), [(362, 274), (2, 2), (512, 512), (638, 358)])
async def test_a_picture_of_any_even_size_arrives_unchanged(width: int, height: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height * 3 // 2, width), np.uint8)

    class OnePicture(NumberedPlayout):
        def tick(self, number: int) -> NumberedPicture:
            return NumberedPicture(picture)

    frame = await PictureTrack(OnePicture(), VirtualClock()).recv()
    assert (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p")
    assert np.array_equal(frame.to_ndarray(), picture)
