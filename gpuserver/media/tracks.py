"""Picture and sound of one playout as aiortc tracks. Both count from the playout's epoch, so neither can drift from the other."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from gpuserver.domain import FRAME_SECONDS, SAMPLE_RATE, SAMPLES_PER_FRAME, Bytes2D, Pcm
from gpuserver.media.clock import Clock, Pacer

PIECE_SECONDS = FRAME_SECONDS / 2  # 20 ms, the usual length of an Opus packet
PIECE_SAMPLES = SAMPLES_PER_FRAME // 2  # 960
PICTURE_CLOCK = 90_000  # Hz, RTP clock of all video formats (RFC 3551)
PICTURE_STEP = round(PICTURE_CLOCK * FRAME_SECONDS)  # 3600

PICTURE_PATIENCE = FRAME_SECONDS  # a picture later than its successor's time is not worth sending
SOUND_PATIENCE = 0.2  # seconds, within the playout's memory; a late piece fits in a browser's jitter buffer, a missing one is a click


class Shown(Protocol):
    """A tick of a playout, as far as the picture track goes."""

    @property
    def picture(self) -> Bytes2D:
        """uint8 [height * 3 / 2, width], I420."""
        ...


class Ticking(Protocol):
    """What the tracks need of a Playout."""

    @property
    def epoch(self) -> float:
        """When tick 0 is due, on the clock's scale."""
        ...

    def tick(self, number: int) -> Shown: ...

    def sound(self, piece: int) -> Pcm:
        """int16 [960]: the 20 ms number `piece` since the epoch."""
        ...


class PictureTrack(MediaStreamTrack):
    """25 pictures per second; a late one is left out."""

    kind = "video"

    def __init__(self, playout: Ticking, clock: Clock):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, FRAME_SECONDS, PICTURE_PATIENCE)

    async def recv(self) -> VideoFrame:
        """The next picture at its time. Raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        number = await self._pacer.next()
        frame = VideoFrame.from_ndarray(self._playout.tick(number).picture, format="yuv420p")
        frame.pts = number * PICTURE_STEP
        frame.time_base = Fraction(1, PICTURE_CLOCK)
        return frame


class SoundTrack(MediaStreamTrack):
    """50 pieces of 20 ms per second; a late one is sent at once, a very late one is left out."""

    kind = "audio"

    def __init__(self, playout: Ticking, clock: Clock):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, PIECE_SECONDS, SOUND_PATIENCE)

    async def recv(self) -> AudioFrame:
        """The next 20 ms at their time. Raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        piece = await self._pacer.next()
        frame = AudioFrame.from_ndarray(self._playout.sound(piece).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = piece * PIECE_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        return frame
