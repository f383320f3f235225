"""Picture and sound of one playout as aiortc tracks. Both count from the playout's epoch, so neither can drift from the other."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from gpuserver.domain import FRAME_SECONDS, SAMPLES_PER_FRAME, Avatar, Pcm
from gpuserver.media.clock import Clock, Pacer
from gpuserver.media.encoding import NotePiece, unheeded
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

    def __init__(self, playout: Ticking, clock: Clock, note: NotePiece = unheeded):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, FRAME_SECONDS, PICTURE_PATIENCE, partial(note, self.kind))
        self._stream: PictureStream | None = None

    def begin(self, stream: PictureStream) -> None:
        """Send what this stream encodes."""
        self._stream = stream

    async def recv(self) -> Encoded:  # type: ignore[override] # a sender takes what its encoder's pack() takes
        """The next picture at its time. Raises MediaStreamError once stopped."""
        stream = self._stream
        if self.readyState != "live" or stream is None:
            raise MediaStreamError
        if stream.owes:
            unit = stream.pay()
        else:
            unit = await stream.next(self._playout.tick(await self._pacer.next()))
        return Encoded(unit.payloads, unit.number * PICTURE_STEP)


class SoundTrack(MediaStreamTrack):
    """Pieces of 20 ms; a late one is sent at once, a very late one is left out. The silence of a whole tick leaves as one packet."""

    kind = "audio"

    def __init__(self, playout: Ticking, clock: Clock, note: NotePiece = unheeded):
        super().__init__()
        self._playout = playout
        self._pacer = Pacer(clock, playout.epoch, PIECE_SECONDS, SOUND_PATIENCE, partial(note, self.kind))
        self._stream = SoundStream()

    async def recv(self) -> Encoded:  # type: ignore[override] # a sender takes what its encoder's pack() takes
        """The next 20 ms at their time. Raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        piece = await self._pacer.next()
        timestamp = piece * PIECE_SAMPLES
        tick, half = divmod(piece, 2)
        if half == 0 and self._stream.settled and self._playout.tick(tick).generation is None:
            self._playout.sound(piece + 1)  # is taken as well
            self._pacer.include(1)
            return Encoded((self._stream.silent_tick,), timestamp)
        return Encoded((self._stream.encode(self._playout.sound(piece)),), timestamp)
