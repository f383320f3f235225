"""Picture and sound of one playout as aiortc tracks. Both count from the playout's epoch, so neither can drift from the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack
from av import Packet

from gpuserver.domain import FRAME_SECONDS, SAMPLES_PER_FRAME, Avatar, Pcm
from gpuserver.media.clock import Clock, Pacer
from gpuserver.media.picture_encoders import H264
from gpuserver.media.picture_stream import PictureStream
from gpuserver.media.playout import PlayedFrame
from gpuserver.media.sending import Encoded
from gpuserver.media.sound_stream import SoundStream

PIECE_SECONDS = FRAME_SECONDS / 2  # 20 ms, the usual length of an Opus packet
PIECE_SAMPLES = SAMPLES_PER_FRAME // 2  # 960
PICTURE_CLOCK = 90_000  # Hz, RTP clock of all video formats (RFC 3551)
PICTURE_STEP = round(PICTURE_CLOCK * FRAME_SECONDS)  # 3600

PICTURE_PATIENCE = FRAME_SECONDS  # a picture later than its successor's time is not worth sending
SOUND_PATIENCE = 0.2  # seconds, within the playout's memory; a late piece fits in a browser's jitter buffer, a missing one is a click


class Ticking(Protocol):
    """What the tracks need of a Playout."""

    @property
    def avatar(self) -> Avatar: ...

    @property
    def epoch(self) -> float:
        """When tick 0 is due, on the clock's scale."""
        ...

    def tick(self, number: int) -> PlayedFrame: ...

    def sound(self, piece: int) -> Pcm:
        """int16 [960]: the 20 ms number `piece` since the epoch."""
        ...


class PictureTrack(MediaStreamTrack):
    """25 pictures per second; a late one is left out. begin() comes before the first recv()."""

    kind = "video"

    def __init__(self, playout: Ticking, clock: Clock):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, FRAME_SECONDS, PICTURE_PATIENCE)
        self._stream: PictureStream | None = None
        self._pack: Callable[[Packet[Any]], tuple[list[bytes], int]] = H264Encoder().pack

    def begin(self, stream: PictureStream, mime_type: str) -> None:
        """Send what this stream encodes, in the codec that was negotiated."""
        self._stream = stream
        self._pack = H264Encoder().pack if mime_type == H264 else Vp8Encoder().pack

    async def recv(self) -> Encoded:  # type: ignore[override] # a sender takes what its encoder's pack() takes
        """The next picture at its time. Raises MediaStreamError once stopped."""
        stream = self._stream
        if self.readyState != "live" or stream is None:
            raise MediaStreamError
        if stream.owes:
            unit = stream.pay()
        else:
            unit = await stream.next(self._playout.tick(await self._pacer.next()))
        packet = Packet(unit.data)
        packet.pts, packet.time_base = unit.number * PICTURE_STEP, VIDEO_TIME_BASE
        return Encoded(*self._pack(packet))


class SoundTrack(MediaStreamTrack):
    """50 pieces of 20 ms per second; a late one is sent at once, a very late one is left out."""

    kind = "audio"

    def __init__(self, playout: Ticking, clock: Clock):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, PIECE_SECONDS, SOUND_PATIENCE)
        self._stream = SoundStream()

    async def recv(self) -> Encoded:  # type: ignore[override] # a sender takes what its encoder's pack() takes
        """The next 20 ms at their time. Raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        piece = await self._pacer.next()
        return Encoded([self._stream.encode(self._playout.sound(piece))], piece * PIECE_SAMPLES)
