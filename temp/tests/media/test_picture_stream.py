"""Which pictures come from the shared loop and which are encoded for one connection; decoded, all are what was to be shown."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from av import CodecContext, Packet, VideoCodecContext
from moving_avatar import moving_avatar

from gpuserver.domain import Avatar, Bytes2D, Generation
from gpuserver.media.bitrate import LADDER, Bitrate
from gpuserver.media.idle_stream import KEY_EVERY, IdleStreams
from gpuserver.media.payloads import H264, VP8
from gpuserver.media.picture_encoders import CODECS
from gpuserver.media.picture_stream import JOIN_UNITS, KEY_PAUSE_TICKS, PictureStream
from gpuserver.media.playout import PlayedFrame

SILENCE = np.zeros(1920, np.int16)
PERIOD = 98  # units of a loop of 50 frames, forth and back


@dataclass(eq=False)
class CountingExecutor(Executor):
    """Encodes at once, and counts."""

    encoded: int = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.encoded += 1
        done: Future[object] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def is_key(data: bytes) -> bool:
    """H264: a NAL unit of type 5 behind a start code; VP8: the first bit of the frame tag is 0 (RFC 6386, section 9.1)."""
    if data.startswith(b"\0\0"):
        return any(part[:1] and part[0] & 31 == 5 for part in data.split(b"\0\0\1"))
    return data[0] & 1 == 0


@dataclass(eq=False)
class Connection:
    """Asks a stream for tick after tick, and decodes what comes as a browser does."""

    avatar: Avatar
    stream: PictureStream
    pool: CountingExecutor
    decoder: VideoCodecContext
    depayload: Callable[[bytes], bytes]
    worst: float = 0.0  # mean difference of a decoded picture to the one that was to be shown, in grey levels
    numbers: list[int] = field(default_factory=list)
    shown: dict[int, Bytes2D] = field(default_factory=dict)
    keys: list[int] = field(default_factory=list)

    async def tick(self, number: int, *, position: int | None = None, talking: bool = False) -> None:
        position = number if position is None else position
        picture = self.avatar.frame_at(position).picture
        if talking:
            picture = np.roll(picture, 3, axis=1)
        self.shown[number] = picture
        for missing in range(number - KEY_EVERY, number):
            self.shown.setdefault(missing, self.avatar.frame_at(position - number + missing).picture)
        unit = await self.stream.next(PlayedFrame(number, position, picture, SILENCE, Generation(1) if talking else None))
        while True:
            self._see(unit.number, b"".join(map(self.depayload, unit.payloads)))
            if not self.stream.owes:
                break
            unit = self.stream.pay()

    def _see(self, number: int, data: bytes) -> None:
        self.numbers.append(number)
        [frame] = self.decoder.decode(Packet(data))
        if is_key(data):
            self.keys.append(number)
        difference = np.abs(frame.to_ndarray(format="yuv420p").astype(int) - self.shown[number])
        self.worst = max(self.worst, float(difference.mean()))


@pytest.fixture
async def loops() -> AsyncIterator[IdleStreams]:
    made = IdleStreams()
    yield made
    await made.aclose()


async def encoded_loop(loops: IdleStreams, avatar: Avatar, codec: str) -> None:
    """Returns when the avatar's loop has been encoded."""
    await loops.encoded(avatar, codec)
    assert loops.get(avatar, codec) is not None


def restless_avatar() -> Avatar:
    """Noise, another one in every picture: 1.7 Mbit/s where nothing limits them."""
    avatar = moving_avatar()
    noise = np.random.default_rng(1)
    for frame in avatar.frames:
        frame.picture[...] = noise.integers(0, 256, frame.picture.shape, np.uint8)
    return avatar


def connect(loops: IdleStreams, codec: str, avatar: Avatar) -> Connection:
    pool = CountingExecutor()
    stream = PictureStream(avatar, codec, loops, pool, Bitrate(asyncio.get_running_loop().time))
    decoder = CodecContext.create("h264" if codec == H264 else "libvpx", "r")
    decoder.flags = decoder.flags | 0x80000  # low delay
    return Connection(avatar, stream, pool, decoder, h264_depayload if codec == H264 else vp8_depayload)


@pytest.fixture(params=CODECS)
async def connection(request: pytest.FixtureRequest, loops: IdleStreams) -> Connection:
    avatar = moving_avatar()
    await encoded_loop(loops, avatar, request.param)
    return connect(loops, request.param, avatar)


async def test_an_idle_session_is_encoded_for_only_until_it_can_join_the_loop(connection: Connection) -> None:
    for number in range(KEY_EVERY - 10, KEY_EVERY + 2 * PERIOD):
        await connection.tick(number)
    assert connection.pool.encoded == 10
    assert connection.worst < 3


async def test_a_session_that_starts_at_a_key_frame_of_the_loop_encodes_nothing(connection: Connection) -> None:
    for number in range(30):
        await connection.tick(number)
    assert connection.pool.encoded == 0
    assert connection.keys == [0]


async def test_speech_begins_with_a_key_frame_and_the_loop_is_joined_again_at_one(connection: Connection) -> None:
    for number in range(20):
        await connection.tick(number)
    for number in range(20, 40):
        await connection.tick(number, talking=True)
    for number in range(40, 80):
        await connection.tick(number)
    assert connection.keys == [0, 20, KEY_EVERY]
    assert connection.pool.encoded == KEY_EVERY - 20
    assert connection.numbers == list(range(80))
    assert connection.worst < 3


async def test_the_loop_that_waits_for_speech_is_encoded_as_it_stands(connection: Connection) -> None:
    for number in range(10):
        await connection.tick(number)
    await connection.tick(10, position=9)
    await connection.tick(11, position=9)
    assert connection.pool.encoded == 2
    assert connection.worst < 3


async def test_ticks_that_were_left_out_are_sent_after_all_while_the_loop_idles(connection: Connection) -> None:
    for number in (0, 1, 2, 9, 10):
        await connection.tick(number)
    assert connection.numbers == list(range(11))
    assert connection.pool.encoded == 0
    assert connection.worst < 3


async def test_after_a_long_gap_the_loop_goes_on_from_its_newest_key_frame(connection: Connection) -> None:
    for number in (0, 1, PERIOD + 4):
        await connection.tick(number)
    assert connection.numbers == [0, 1, *range(PERIOD, PERIOD + 5)]
    assert connection.keys == [0, PERIOD]
    assert connection.pool.encoded == 0
    assert connection.worst < 3


async def test_a_session_that_is_too_late_for_the_loop_s_key_frame_joins_at_it_all_the_same(connection: Connection) -> None:
    """Else a busy server would go on encoding for sessions that idle, and never be less busy."""
    for number in (40, 41, 60, KEY_EVERY + 9, KEY_EVERY + 10):
        await connection.tick(number)
    assert connection.pool.encoded == 3
    assert connection.numbers[3:] == list(range(KEY_EVERY, KEY_EVERY + 11))
    assert connection.worst < 3


async def test_a_connection_that_begins_soon_after_a_key_frame_of_the_loop_begins_with_it(connection: Connection) -> None:
    await connection.tick(KEY_EVERY + JOIN_UNITS - 1)
    assert connection.numbers == list(range(KEY_EVERY, KEY_EVERY + JOIN_UNITS))
    assert connection.pool.encoded == 0


async def test_a_lost_picture_is_answered_by_a_key_frame_but_not_by_one_for_each_request(connection: Connection) -> None:
    for number in range(KEY_PAUSE_TICKS):
        await connection.tick(number)
    for number in range(KEY_PAUSE_TICKS, 40):
        connection.stream.want_key_frame()
        await connection.tick(number)
    steps = np.diff(connection.keys)
    assert len(connection.keys) >= 3
    assert steps.min() >= KEY_PAUSE_TICKS
    assert connection.worst < 3


async def test_key_frames_that_do_not_arrive_become_smaller(connection: Connection) -> None:
    for number in range(60):
        connection.stream.want_key_frame()
        await connection.tick(number, talking=True)
    assert connection.keys == [0, *range(KEY_PAUSE_TICKS, 60, KEY_PAUSE_TICKS)]
    assert connection.stream._bitrate.limit == LADDER[0]


async def test_a_picture_that_is_lost_now_and_then_leaves_the_key_frames_as_they_are(connection: Connection) -> None:
    for number in range(120):
        if number % 40 == 39:
            connection.stream.want_key_frame()
        await connection.tick(number, talking=True)
    assert connection.stream._bitrate.limit == LADDER[-1]


async def test_a_network_that_cannot_carry_the_loop_gets_a_smaller_picture_instead(loops: IdleStreams) -> None:
    avatar = restless_avatar()
    await encoded_loop(loops, avatar, H264)
    connection = connect(loops, H264, avatar)
    connection.stream._bitrate.note_sent(100_000)
    connection.stream.note_estimate(LADDER[0])  # a third of that
    for number in range(5):
        await connection.tick(number)
    assert connection.pool.encoded == 5


@pytest.mark.parametrize("codec", CODECS)
async def test_no_avatar_s_loop_takes_more_than_a_connection_may_send(loops: IdleStreams, codec: str) -> None:
    """Nobody would join it: every idle session would be encoded for."""
    avatar = restless_avatar()
    await encoded_loop(loops, avatar, codec)
    loop = loops.get(avatar, codec)
    assert loop is not None
    assert loop.bitrate <= LADDER[-1]


async def test_a_new_bit_rate_starts_a_new_encoder(connection: Connection) -> None:
    for number in range(3):
        await connection.tick(number, talking=True)
    for _ in range(25):
        connection.stream._bitrate.note_sent(60_000)
    connection.stream.note_estimate(300_000)
    await connection.tick(3, talking=True)
    assert connection.keys == [0, 3]


async def test_a_still_picture_repeats_its_key_frame_every_three_seconds_only(loops: IdleStreams) -> None:
    avatar = moving_avatar(frames=1)
    await encoded_loop(loops, avatar, VP8)
    connection = connect(loops, VP8, avatar)
    for number in range(2 * KEY_EVERY):
        await connection.tick(number)
    assert connection.keys == [0, KEY_EVERY]


async def test_a_deleted_avatar_s_pictures_are_let_go_with_the_last_session_that_shows_it(loops: IdleStreams) -> None:
    avatar = moving_avatar(frames=2)
    await encoded_loop(loops, avatar, H264)
    connection = connect(loops, H264, avatar)
    await connection.tick(0)
    pictures = weakref.ref(avatar)
    del avatar
    gc.collect()
    assert pictures() is not None
    del connection
    gc.collect()
    assert pictures() is None


async def test_a_loop_that_is_being_encoded_when_the_server_stops_is_given_up() -> None:
    loops = IdleStreams()
    loops.get(moving_avatar(640, 480), H264)
    await loops.aclose()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("width", "height"), [(362, 274), (16, 16), (638, 358)])
async def test_a_picture_of_any_even_size_arrives(loops: IdleStreams, codec: str, width: int, height: int) -> None:
    connection = connect(loops, codec, moving_avatar(width, height, frames=5))
    for number in range(3):
        await connection.tick(number, talking=True)
    assert connection.worst < 3
