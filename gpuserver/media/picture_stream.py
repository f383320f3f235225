"""What a connection sends for each tick: a unit of the loop that all idle sessions share, or a picture encoded for it alone.

The encoder of a live stretch is made when speech begins and dropped when the loop is joined again: an idle session holds none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass

from gpuserver.domain import Avatar, Bytes2D
from gpuserver.media.bitrate import Bitrate
from gpuserver.media.idle_stream import IdleStream, IdleStreams
from gpuserver.media.payloads import Payloads
from gpuserver.media.picture_encoders import PictureEncoder, live_encoder
from gpuserver.media.playout import PlayedFrame

KEY_PAUSE_TICKS = 12  # 0.5 s: a browser that has lost a picture asks several times before the answer can have arrived
KEY_AGAIN_TICKS = 25  # 1 s: who asks again so soon has not got the key frame
JOIN_UNITS = 12  # 0.5 s of the loop: a connection that begins so soon after a key frame of the loop begins with that one


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded picture. number: the tick that it shows."""

    number: int
    payloads: Payloads


@dataclass(frozen=True, slots=True)
class _Joined:
    """The loop is being sent: the tick and the phase that were sent last."""

    stream: IdleStream
    number: int
    phase: int


class PictureStream:
    """The pictures of one connection, in one codec. next() is called for one tick after the other, some may be left out."""

    def __init__(self, avatar: Avatar, mime_type: str, loops: IdleStreams, pool: Executor, bitrate: Bitrate):
        self._avatar = avatar
        self._mime_type = mime_type
        self._loops = loops
        self._pool = pool
        self._bitrate = bitrate
        self._joined: _Joined | None = None
        self._encoder: PictureEncoder | None = None
        self._encoder_limit = 0
        self._key_wanted = False
        self._last_key = -KEY_AGAIN_TICKS
        self._owed: deque[Unit] = deque()
        self._newest: int | None = None  # the newest tick that was sent

    def note_estimate(self, estimate: int) -> None:
        """The browser believes that the network carries so many bit/s (REMB)."""
        self._bitrate.note_estimate(estimate)

    def want_key_frame(self) -> None:
        """The browser cannot go on without a whole picture (PLI, FIR)."""
        self._key_wanted = True

    @property
    def owes(self) -> bool:
        """Whether units of ticks that have passed are to be sent first, at once."""
        return bool(self._owed)

    def pay(self) -> Unit:
        """The next unit that is owed."""
        return self._counted(self._owed.popleft())

    async def next(self, played: PlayedFrame) -> Unit:
        """The unit for this tick; more may be owed after it (in order: those are asked for first). Encodes in the pool where it must."""
        if self._follow_loop(played) or self._join_loop(played):
            return self.pay()
        return self._counted(Unit(played.number, await self._encode(played)))

    def _counted(self, unit: Unit) -> Unit:
        self._newest = unit.number
        self._bitrate.note_sent(sum(map(len, unit.payloads)))
        return unit

    def _follow_loop(self, played: PlayedFrame) -> bool:
        """Go on in the loop, over ticks that were left out as well: from the unit that follows, or from a key frame since then."""
        joined = self._joined
        if joined is None or not self._idles(played) or self._key_due(played.number) or joined.stream.bitrate > self._bitrate.limit:
            return False
        missed, phase = played.number - joined.number, joined.stream.phase(played.position)
        if joined.stream.phase(joined.phase + missed) != phase:
            return False
        self._owe(joined.stream, played, min(missed, joined.stream.since_key(phase) + 1))
        return True

    def _join_loop(self, played: PlayedFrame) -> bool:
        """Begin with the loop's newest key frame, if nothing has been sent since it was due."""
        stream = self._loops.get(self._avatar, self._mime_type) if self._idles(played) else None
        if stream is not None and stream.bitrate <= self._bitrate.limit:
            units = stream.since_key(stream.phase(played.position)) + 1
            sent = played.number - JOIN_UNITS if self._newest is None else self._newest
            if played.number - units >= sent:
                self._owe(stream, played, units)
                self._note_key(played.number)
                self._encoder = None
                return True
        self._joined = None
        return False

    def _owe(self, stream: IdleStream, played: PlayedFrame, units: int) -> None:
        """Send so many units of the loop, up to the one for this tick."""
        phase = stream.phase(played.position)
        for before in range(units - 1, -1, -1):
            self._owed.append(Unit(played.number - before, stream.units[phase - before]))
        self._joined = _Joined(stream, played.number, phase)

    async def _encode(self, played: PlayedFrame) -> Payloads:
        """A picture of its own. A new stretch, and a new bit rate, begin with a new encoder."""
        key = self._key_due(played.number)
        if key and played.number - self._last_key < KEY_AGAIN_TICKS:
            self._bitrate.note_lost_key_frame()
        limit = self._bitrate.limit
        if self._encoder is None or self._encoder_limit != limit:
            self._encoder = live_encoder(self._mime_type, self._avatar.width, self._avatar.height, limit)
            self._encoder_limit, key = limit, True
        if key:
            self._note_key(played.number)
        return await asyncio.get_running_loop().run_in_executor(self._pool, _encode, self._encoder, played.picture, key)

    def _idles(self, played: PlayedFrame) -> bool:
        return played.picture is self._avatar.frame_at(played.position).picture

    def _key_due(self, number: int) -> bool:
        return self._key_wanted and number - self._last_key >= KEY_PAUSE_TICKS

    def _note_key(self, number: int) -> None:
        self._key_wanted = False
        self._last_key = number


def _encode(encoder: PictureEncoder, picture: Bytes2D, key: bool) -> Payloads:
    return encoder.encode(picture, key=key)
