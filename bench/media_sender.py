"""A media process of the benchmark: python -m bench.media_sender MODE AVATAR. Answers offers on standard input, says what it cost.

MODE: idle, speaking (frames drawn beforehand), warp (the whole way from text), and stock-h264, stock-vp8: unmodified aiortc with the
same frames, the same sound and the same bit rate. One JSON object per line: {"offer": sdp} -> {"answer": sdp}; {"mark": true} ->
{"cpu": seconds of CPU so far, "wall": seconds, "pictures": sent so far}; {"end": true} ends it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame, VideoFrame

from bench.spoken_frames import SpokenFrames, spoken_frames
from gpuserver.config import Settings
from gpuserver.domain import FRAME_SECONDS, SAMPLE_RATE, Avatar, Generation, Pcm
from gpuserver.media.bitrate import LADDER
from gpuserver.media.clock import LoopClock, Pacer
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.payloads import H264
from gpuserver.media.peer import Peer
from gpuserver.media.playout import PlayedFrame, Playout
from gpuserver.media.ports import AnyPort
from gpuserver.media.sdp import read_offer
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.renderer import Renderer
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.llm_echo import EchoModel
from gpuserver.pipeline.session import Session, SessionSettings
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.voice import make_voice
from gpuserver.wire import CreateSession, Offer

CONSTRUCTOR = "__init__"
Answer = Callable[[str], Awaitable[str]]
TEXT = "The moon moves around the earth once a month. A prime number has exactly two divisors. Please write down what you already know. "


class RepeatingPlayout:
    """Plays the same spoken frames over and over, drawn beforehand: what is left to pay for is encoding and sending."""

    def __init__(self, avatar: Avatar, frames: SpokenFrames):
        self.avatar = avatar
        self.epoch = Playout(avatar).epoch
        self._frames = frames
        self._generation = Generation(1)

    def tick(self, number: int) -> PlayedFrame:
        index = number % len(self._frames.pictures)
        return PlayedFrame(number, number, self._frames.pictures[index], self._frames.sounds[index], self._generation)

    def sound(self, piece: int) -> Pcm:
        return self.tick(piece // 2).sound[piece % 2 * 960 :][:960]


class StockPictures(MediaStreamTrack):
    """The same frames the way aiortc's documentation sends pictures."""

    kind = "video"

    def __init__(self, frames: SpokenFrames):
        super().__init__()
        self._frames = frames
        self._pacer = Pacer(LoopClock(), time.monotonic(), FRAME_SECONDS, FRAME_SECONDS)

    async def recv(self) -> VideoFrame:
        number = await self._pacer.next()
        frame = VideoFrame.from_ndarray(self._frames.pictures[number % len(self._frames.pictures)], format="yuv420p")
        frame.pts, frame.time_base = number * 3600, Fraction(1, 90_000)
        return frame


class StockSound(MediaStreamTrack):
    kind = "audio"

    def __init__(self, frames: SpokenFrames, epoch: float | None = None):
        super().__init__()
        self._sound = np.concatenate(frames.sounds).reshape(-1, 960)
        self._pacer = Pacer(LoopClock(), time.monotonic() if epoch is None else epoch, FRAME_SECONDS / 2, 0.2)

    async def recv(self) -> AudioFrame:
        piece = await self._pacer.next()
        frame = AudioFrame.from_ndarray(self._sound[piece % len(self._sound)].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, piece * 960, Fraction(1, SAMPLE_RATE)
        return frame


@asynccontextmanager
async def ours(make_playout: Callable[[], RepeatingPlayout | Playout], idles: Avatar | None = None) -> AsyncIterator[Answer]:
    """Our own peers, each on a playout of its own. idles: whose loop is encoded beforehand, as it is once sessions have been there."""
    encoding, network, peers = Encoding(), IceNetwork(AnyPort()), list[Peer]()

    if idles is not None:
        await encoding.prepare(idles, H264)

    async def answer(sdp: str) -> str:
        peer = Peer(make_playout(), LoopClock(), network, encoding, on_connected=lambda _: None, on_ended=lambda _: None)
        peers.append(peer)
        return await peer.answer(read_offer(Offer(sdp=sdp, type="offer")))

    try:
        yield answer
    finally:
        await asyncio.gather(*(peer.aclose() for peer in peers))
        await encoding.aclose()


@asynccontextmanager
async def stock(frames: SpokenFrames, mime_type: str) -> AsyncIterator[Answer]:
    """Unmodified aiortc. Its encoders start at 0.5 and 1 Mbit/s; here they get the bit rate that ours may take."""
    connections: list[RTCPeerConnection] = []
    for kind in (H264Encoder, Vp8Encoder):
        _begin_at(kind, LADDER[-1])

    async def answer(sdp: str) -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)
        connection.addTransceiver(StockSound(frames), direction="sendonly")
        video = connection.addTransceiver(StockPictures(frames), direction="sendonly")
        video.setCodecPreferences([codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType == mime_type])
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return str(connection.localDescription.sdp)

    try:
        yield answer
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


def _begin_at(kind: type[H264Encoder | Vp8Encoder], bitrate: int) -> None:
    """Encoders of this kind start at `bitrate`."""
    start = kind.__init__

    def begin(encoder: Any) -> None:
        start(encoder)
        encoder.target_bitrate = bitrate

    setattr(kind, CONSTRUCTOR, begin)


@asynccontextmanager
async def talking_sessions(avatar: Avatar) -> AsyncIterator[Answer]:
    """Sessions of the product: text, voice (hibari), lips, picture and sound. Each is always talking."""
    async with AsyncExitStack() as stack:
        voice = make_voice(Settings(tts="hibari"))
        voice.start()
        stack.push_async_callback(voice.aclose)
        engine = WarpEngine()
        renderer = Renderer(engine)
        renderer.start()
        stack.callback(renderer.close)
        studio = Studio(EchoModel(), voice, engine, renderer)

        def make_playout() -> Playout:
            playout = Playout(avatar)
            settings = SessionSettings(model=None, idle_seconds=3600)
            session = Session(
                CreateSession(tutor_id="bench", student_id="bench"), avatar, playout, studio, settings, on_idle=lambda _: None
            )
            session.attach()
            talking = asyncio.create_task(session.say(TEXT * 20))
            stack.push_async_callback(session.aclose, "the benchmark is over")
            stack.push_async_callback(lambda: talking)
            return playout

        yield await stack.enter_async_context(ours(make_playout, idles=avatar))


async def serve(answer: Answer) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        asked = json.loads(line)
        if "end" in asked:
            return
        if "offer" in asked:
            reply: dict[str, object] = {"answer": await answer(asked["offer"])}
        else:
            used = resource.getrusage(resource.RUSAGE_SELF)
            reply = {"cpu": used.ru_utime + used.ru_stime, "wall": time.monotonic()}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


async def run(mode: str, avatar: Avatar) -> None:
    if mode == "idle":
        made = ours(lambda: Playout(avatar), idles=avatar)
    elif mode == "warp":
        made = talking_sessions(avatar)
    else:
        frames = spoken_frames(avatar)
        made = (
            ours(lambda: RepeatingPlayout(avatar, frames))
            if mode == "speaking"
            else stock(frames, f"video/{mode.removeprefix('stock-').upper()}")
        )
    async with made as answer:
        sys.stdout.write(json.dumps({"ready": mode}) + "\n")
        sys.stdout.flush()
        await serve(answer)


def main(arguments: Sequence[str]) -> None:
    cv2.setNumThreads(1)  # as the media server does
    mode, folder = arguments
    asyncio.run(run(mode, load_avatar(Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1:])
