"""How far pictures are from the sound they belong to, at a receiver that goes by the sender's reports as browsers do."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket
from av import VideoFrame
from receiver import Receiver

from gpuserver.domain import FRAME_SECONDS, SAMPLE_RATE, SAMPLES_PER_FRAME, Avatar, AvatarFrame, Box, Generation, Pcm
from gpuserver.media.clock import LoopClock, Pacer
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peer import Peer
from gpuserver.media.playout import PlayedFrame
from gpuserver.media.ports import AnyPort
from gpuserver.media.sdp import read_offer
from gpuserver.media.tracks import PICTURE_CLOCK
from gpuserver.wire import Offer

BEAT = 25  # ticks between two beeps; the grey of a picture tells how many have passed since the last one
DARKEST, STEP = 20, 9  # grey levels
SIZE = 64
BEEP: Pcm = (12_000 * np.sign(np.sin(np.arange(SAMPLES_PER_FRAME) * 2 * np.pi * 1000 / SAMPLE_RATE + 0.1))).astype(np.int16)
QUIET: Pcm = np.zeros(SAMPLES_PER_FRAME, np.int16)
LOUD = 3000
TAKE_REPORT, TIMES = "_handle_rtcp_packet", "_RTCRtpReceiver__timestamp_mapper"  # of aiortc's receiver


class CountingPlayout:
    """Pictures that count from beep to beep."""

    def __init__(self) -> None:
        self.epoch = time.monotonic()
        self._pictures = [np.full((SIZE * 3 // 2, SIZE), 128, np.uint8) for _ in range(BEAT)]
        for count, picture in enumerate(self._pictures):
            picture[:SIZE] = DARKEST + STEP * count
        frame = AvatarFrame(0, np.zeros_like(self._pictures[0]), np.zeros((468, 2), np.float32), Box(0, 0, SIZE, SIZE), 0.0)
        self.avatar = Avatar("counting", SIZE, SIZE, [frame])
        self._generation = Generation(1)

    def tick(self, number: int) -> PlayedFrame:
        count = number % BEAT
        return PlayedFrame(number, number, self._pictures[count], QUIET if count else BEEP, self._generation)

    def sound(self, piece: int) -> Pcm:
        return self.tick(piece // 2).sound[piece % 2 * 960 :][:960]


class SlowEncoding(Encoding):
    """Every picture takes `seconds` longer than it should."""

    def __init__(self, seconds: float):
        super().__init__(1)
        self._pool = _SlowPool(seconds)


class _SlowPool(ThreadPoolExecutor):
    def __init__(self, seconds: float):
        super().__init__(1)
        self._seconds = seconds

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def work() -> object:
            time.sleep(self._seconds)
            return fn(*args, **kwargs)

        return super().submit(work)


class StockCounting(MediaStreamTrack):
    """The same pictures as raw frames, each given to aiortc `late` seconds after its time."""

    kind = "video"

    def __init__(self, playout: CountingPlayout, late: float):
        super().__init__()
        self._playout = playout
        self._late = late
        self._pacer = Pacer(LoopClock(), playout.epoch, FRAME_SECONDS, FRAME_SECONDS)

    async def recv(self) -> VideoFrame:
        number = await self._pacer.next()
        await asyncio.sleep(self._late)
        frame = VideoFrame.from_ndarray(self._playout.tick(number).picture, format="yuv420p")
        frame.pts, frame.time_base = number * 3600, Fraction(1, PICTURE_CLOCK)
        return frame


@dataclass(slots=True, eq=False)
class Reports:
    """What a sender reports about one stream: pairs of its RTP time and the wall clock."""

    rate: int
    stream: Any  # aiortc's receiver
    times: list[tuple[float, int, float]] = field(default_factory=list)  # when it came (monotonic), RTP time, wall clock in seconds

    def listen(self) -> None:
        take = getattr(self.stream, TAKE_REPORT)

        async def note(packet: AnyRtcpPacket) -> None:
            if isinstance(packet, RtcpSrPacket):
                told = packet.sender_info
                self.times.append((time.monotonic(), told.rtp_timestamp, told.ntp_timestamp / 2**32))
            await take(packet)

        setattr(self.stream, TAKE_REPORT, note)

    def wall_clock(self, pts: int, arrived: float) -> float | None:
        """When a frame was due, by the newest report at its arrival; None before the first report. pts: since the first packet."""
        known = [(stamp, wall) for at, stamp, wall in self.times if at <= arrived]
        if not known:
            return None
        stamp, wall = known[-1]
        distance: int = (getattr(self.stream, TIMES)._origin + pts - stamp + 2**31) % 2**32 - 2**31
        return wall + distance / self.rate


async def lags(late: float, *, stock: bool = False, pictures: int = 40) -> list[float]:
    """Seconds by which each picture is behind its sound (negative: before it). late: what every picture is delayed by, seconds."""
    playout = CountingPlayout()
    async with Receiver() as receiver:
        offer = await receiver.offer()
        sound, picture = (transceiver.receiver for transceiver in receiver.connection.getTransceivers())
        sounds, seen = Reports(SAMPLE_RATE, sound), Reports(PICTURE_CLOCK, picture)
        for reports in (sounds, seen):
            reports.listen()
        answer, close = await (_stock if stock else _ours)(playout, late, offer)
        try:
            await receiver.accept(answer)
            await receiver.until(lambda: bool(sounds.times and seen.times), within=20)
            begun = time.monotonic()
            await receiver.until(lambda: sum(each.arrived > begun for each in receiver.pictures) >= pictures, within=30 + pictures)
        finally:
            await close()
    beeps = _beeps(receiver, sounds)
    return [lag for each in receiver.pictures if (lag := _lag(each.luma, seen.wall_clock(each.pts, each.arrived), beeps)) is not None]


def _beeps(receiver: Receiver, reports: Reports) -> list[float]:
    """When the beeps began, wall clock in seconds."""
    found: list[float] = []
    for piece in receiver.sounds:
        wall, loud = reports.wall_clock(piece.pts, piece.arrived), np.flatnonzero(np.abs(piece.pcm.astype(np.int32)) > LOUD)
        if wall is not None and len(loud):
            begun = wall + int(loud[0]) / SAMPLE_RATE
            if not found or begun - found[-1] > BEAT * FRAME_SECONDS / 2:
                found.append(begun)
    return found


def _lag(luma: np.ndarray, shown: float | None, beeps: list[float]) -> float | None:
    if shown is None:
        return None
    period = BEAT * FRAME_SECONDS
    due = statistics.median((beep - beeps[0] + period / 2) % period - period / 2 for beep in beeps) + beeps[0]
    count = round(
        (float(luma.mean()) * 219 / 255 + 16 - DARKEST) / STEP
    )  # the receiver's grey goes from 0 to 255, a video's from 16 to 235
    return (shown - due - count * FRAME_SECONDS + period / 2) % period - period / 2


async def _ours(playout: CountingPlayout, late: float, offer: str) -> tuple[str, Callable[[], Any]]:
    encoding = SlowEncoding(late) if late else Encoding(1)
    peer = Peer(playout, LoopClock(), IceNetwork(AnyPort()), encoding, on_connected=lambda _: None, on_ended=lambda _: None)

    async def close() -> None:
        await peer.aclose()
        await encoding.aclose()

    return await peer.answer(read_offer(Offer(sdp=offer, type="offer"))), close


async def _stock(playout: CountingPlayout, late: float, offer: str) -> tuple[str, Callable[[], Any]]:
    from bench.media_sender import StockSound
    from bench.spoken_frames import SpokenFrames

    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    ticks = [playout.tick(number) for number in range(BEAT)]
    frames = SpokenFrames([tick.picture for tick in ticks], [tick.sound for tick in ticks])
    connection.addTransceiver(StockSound(frames, playout.epoch), direction="sendonly")
    connection.addTransceiver(StockCounting(playout, late), direction="sendonly")
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    return str(connection.localDescription.sdp), connection.close
