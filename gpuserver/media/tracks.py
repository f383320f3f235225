"""Picture and sound of one playout as aiortc tracks. Both count from the playout's epoch, so neither can drift from the other."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from typing import Protocol

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from gpuserver.domain import FRAME_SECONDS, SAMPLE_RATE, SAMPLES_PER_FRAME, Bytes2D, Pcm
from gpuserver.media.clock import Clock, Pacer

PIECES_PER_FRAME = 2
PIECE_SAMPLES = SAMPLES_PER_FRAME // PIECES_PER_FRAME  # 960: 20 ms, the usual length of an Opus packet
PICTURE_CLOCK = 90_000  # Hz, RTP clock of all video formats (RFC 3551)
PICTURE_STEP = round(PICTURE_CLOCK * FRAME_SECONDS)  # 3600

PICTURE_PATIENCE = FRAME_SECONDS  # a picture later than its successor's time is not worth sending
SOUND_PATIENCE = 0.2  # seconds; a late piece fits in a browser's jitter buffer, a missing one is a click
REMEMBERED_TICKS = 8  # 320 ms; more than SOUND_PATIENCE, so that sound that catches up still finds its ticks


class Ticking(Protocol):
    """What the tracks need of a playout."""

    @property
    def epoch(self) -> float:
        """When tick 0 is due, on the clock's scale."""
        ...

    def tick(self, number: int) -> tuple[Bytes2D, Pcm]:
        """Picture (I420) and sound (int16 [1920]) of a tick; asked once per tick, in rising order, ticks may be left out."""
        ...


class Ticks:
    """The ticks of one playout for two tracks: each tick is played once, whichever track comes first."""

    def __init__(self, playout: Ticking):
        self._playout = playout
        self._played: OrderedDict[int, tuple[Bytes2D, Pcm]] = OrderedDict()
        self._last: int | None = None

    def get(self, number: int) -> tuple[Bytes2D, Pcm] | None:
        """Picture and sound of tick `number`; None if it lies further back than is remembered."""
        first = number if self._last is None else max(self._last + 1, number - REMEMBERED_TICKS + 1)
        for each in range(first, number + 1):
            self._played[each] = self._playout.tick(each)
            self._last = each
        while len(self._played) > REMEMBERED_TICKS:
            self._played.popitem(last=False)
        return self._played.get(number)


class PictureTrack(MediaStreamTrack):
    """25 pictures per second; a late one is left out."""

    kind = "video"

    def __init__(self, ticks: Ticks, pacer: Pacer):
        super().__init__()
        self._ticks = ticks
        self._pacer = pacer

    async def recv(self) -> VideoFrame:
        """The next picture at its time. Raises MediaStreamError once stopped."""
        while self.readyState == "live":
            number = await self._pacer.next()
            played = self._ticks.get(number)
            if played is not None:
                frame = VideoFrame.from_ndarray(played[0], format="yuv420p")
                frame.pts = number * PICTURE_STEP
                frame.time_base = Fraction(1, PICTURE_CLOCK)
                return frame
        raise MediaStreamError


class SoundTrack(MediaStreamTrack):
    """50 pieces of 20 ms per second; a late one is sent at once, a very late one is left out."""

    kind = "audio"

    def __init__(self, ticks: Ticks, pacer: Pacer):
        super().__init__()
        self._ticks = ticks
        self._pacer = pacer

    async def recv(self) -> AudioFrame:
        """The next 20 ms at their time. Raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        piece = await self._pacer.next()
        number, part = divmod(piece, PIECES_PER_FRAME)
        played = self._ticks.get(number)
        sound = np.zeros(SAMPLES_PER_FRAME, np.int16) if played is None else played[1]
        samples = sound[part * PIECE_SAMPLES : (part + 1) * PIECE_SAMPLES]
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = piece * PIECE_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        return frame


def make_tracks(playout: Ticking, clock: Clock) -> tuple[PictureTrack, SoundTrack]:
    """The two tracks of one connection."""
    ticks = Ticks(playout)
    picture = PictureTrack(ticks, Pacer(clock, playout.epoch, FRAME_SECONDS, PICTURE_PATIENCE))
    sound = SoundTrack(ticks, Pacer(clock, playout.epoch, FRAME_SECONDS / PIECES_PER_FRAME, SOUND_PATIENCE))
    return picture, sound
