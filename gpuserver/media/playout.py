"""The stage with a clock, without I/O: tick n gives the picture and the 40 ms of sound that belong to it.

Idle shows the avatar's loop untouched. Speech continues the loop at the next position and the loop continues where
speech ends, so the picture never jumps; where a frame comes too late for its position, its mouth is carried over to the
position that the loop has reached.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gpuserver.domain import (
    FRAME_SECONDS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Avatar,
    Bytes2D,
    Generation,
    Pcm,
    Played,
    TalkingFrame,
)
from gpuserver.musetalk.rendering.compositor import MouthFade

PIECE_SAMPLES = SAMPLES_PER_FRAME // 2  # 960: sound leaves in packets of 20 ms
PIECES_PER_SECOND = SAMPLE_RATE // PIECE_SAMPLES
ROUNDING = 1e-6  # of a piece; time / period is not exact in floating point
AHEAD_FRAMES = 25  # 1 s of finished frames may wait
HOLD_TICKS = 5  # 200 ms: as long the loop waits for a booked frame that is not there yet
MEMORY_TICKS = 8  # 320 ms: as far back a track may still ask
FADE_OUT_SAMPLES = 240  # 5 ms: an interrupted sound ends without a click

SILENCE: Pcm = np.zeros(SAMPLES_PER_FRAME, np.int16)
SILENCE.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class PlayedFrame:
    """What one tick shows and sounds like.

    position: of the loop. picture: uint8 [h * 3 / 2, w], I420, read-only by agreement; while idle it is the avatar's own
    object. sound: int16 [1920]. generation: who speaks; None while idle.
    """

    number: int
    position: int
    picture: Bytes2D
    sound: Pcm
    generation: Generation | None


Camera = Callable[[PlayedFrame], None]


@dataclass(slots=True, eq=False)
class _Slot:
    """A booked frame, and the frame itself once it was put. earliest: the tick during which it was booked; those before are past."""

    generation: Generation
    earliest: int
    frame: TalkingFrame | None = None


@dataclass(slots=True, eq=False)
class _Performance:
    """What became of one generation so far."""

    started_at: float | None = None
    heard: int = 0
    last_audible_at: float | None = None


class Playout:
    """Implements domain.Stage. tick() asks come from tracks that number their ticks from `epoch`: tick n is due at epoch + n / 25.

    All playouts' pieces are due at the same moments: the event loop wakes 50 times a second, however many sessions there are.
    The picture track asks tick(n).picture, the sound track sound(m) for the m-th 20 ms; either may come first. If ticks
    are left out, as many frames are dropped: sound and picture stay together and never fall behind the clock.
    """

    def __init__(self, avatar: Avatar, monotonic: Callable[[], float] = time.monotonic):
        self.epoch = math.floor(monotonic() * PIECES_PER_SECOND + ROUNDING) / PIECES_PER_SECOND
        self.last: PlayedFrame | None = None
        self.avatar = avatar
        self._monotonic = monotonic
        self._number = -1  # the newest tick played
        self._position = -1  # of the loop at that tick
        self._held = 0  # ticks for which the loop has been waiting
        self._pieces_sent = 0  # the number of the first 20 ms that the sound track has not taken yet
        self._slots: deque[_Slot] = deque()
        self._ahead = 0  # slots that have their frame
        self._fade = MouthFade()
        self._memory: dict[int, PlayedFrame] = {}
        self._performances: dict[Generation, _Performance] = {}
        self._change = asyncio.Event()
        self._camera: Camera | None = None
        self._filmed = -1  # the newest tick that the camera has, or that came before it

    # ------------------------------------------------------------ for the tracks

    def tick(self, number: int) -> PlayedFrame:
        """What tick `number` shows; the same object as often as it is asked. A tick that is already forgotten is silent."""
        if number > self._number:
            first = max(self._number + 1, number - MEMORY_TICKS + 1)
            self._skip(first - self._number - 1)
            for each in range(first, number + 1):
                self._play(each)
            self._announce_change()
        if played := self._memory.get(number):
            return played
        return replace(self._memory[self._number], number=number, sound=SILENCE, generation=None)

    def sound(self, piece: int) -> Pcm:
        """int16 [960]: the 20 ms number `piece` since the epoch, as it leaves now. What was asked for cannot be silenced any more."""
        number, half = divmod(piece, 2)
        played = self.tick(number)
        self._pieces_sent = max(self._pieces_sent, piece + 1)
        return played.sound[half * PIECE_SAMPLES : (half + 1) * PIECE_SAMPLES]

    # ------------------------------------------------------------ for a recording

    def record(self, camera: Camera) -> None:
        """From the next tick on, give the camera every frame that was played, in order, once nothing of it can change any more."""
        self._camera = camera
        self._filmed = self._number

    def stop_recording(self) -> None:
        """Give the camera what has been played so far, and nothing more."""
        for played in self._memory.values():
            self._film(played)
        self._camera = None

    @property
    def speaking(self) -> bool:
        """Whether speech is being played or waits to be."""
        return bool(self._slots) or (self.last is not None and self.last.generation is not None)

    # ------------------------------------------------------------ for the Turn (domain.Stage)

    def book(self, generation: Generation) -> int:
        self._slots.append(_Slot(generation, int((self._monotonic() - self.epoch) / FRAME_SECONDS)))
        self._performances.setdefault(generation, _Performance())
        return self._position + len(self._slots)

    def due(self, position: int) -> float:
        running = int((self._monotonic() - self.epoch) / FRAME_SECONDS)  # the tick that is due now, played or not
        return self.epoch + (max(self._number, running - 1) + position - self._position) * FRAME_SECONDS

    def patience(self, position: int) -> float | None:
        return self.due(position) - self._monotonic()

    async def put(self, frame: TalkingFrame) -> None:
        while not frame.generation.cancelled and self._ahead >= AHEAD_FRAMES:
            await self._change_to_come()
        if frame.generation.cancelled:
            return
        for slot in self._slots:
            if slot.generation is frame.generation and slot.frame is None:
                slot.frame = frame
                self._ahead += 1
                return
        raise ValueError("a frame was put that was not booked")

    def cancel(self, generation: Generation) -> None:
        generation.cancel()
        self._slots = deque(slot for slot in self._slots if slot.generation is not generation)
        self._ahead = sum(slot.frame is not None for slot in self._slots)
        self._held = 0
        self._silence(generation)
        self._announce_change()

    async def started(self, generation: Generation) -> float | None:
        performance = self._performances.setdefault(generation, _Performance())
        while performance.started_at is None and not generation.cancelled:
            await self._change_to_come()
        return performance.started_at

    async def drained(self, generation: Generation) -> Played:
        while any(slot.generation is generation for slot in self._slots):
            await self._change_to_come()
        performance = self._performances.pop(generation, _Performance())
        return Played(performance.heard, performance.last_audible_at)

    # ------------------------------------------------------------ one tick

    def _play(self, number: int) -> None:
        """Play the tick that follows the newest one."""
        frame = self._step(number)
        shown = self.avatar.frame_at(self._position)
        if frame is None:
            played = PlayedFrame(number, self._position, self._fade.idle(shown), SILENCE, None)
        else:
            picture = self._fade.talking(shown, frame.crop, drawn_on=frame.frame)
            played = PlayedFrame(number, self._position, picture, frame.sound, frame.generation)
            self._note_audible(played)
        self._memory[number] = self.last = played
        self._forget(number - MEMORY_TICKS)

    def _step(self, number: int) -> TalkingFrame | None:
        """Move on by one tick: the frame to be played, or None while the loop idles or holds."""
        self._number = number
        if self._slots and number < self._slots[0].earliest:  # nobody watched when this tick was due
            self._position += 1
            return None
        if self._slots and self._slots[0].frame is None and self._held < HOLD_TICKS:
            self._held += 1
            return None
        self._position += 1
        if not self._slots or (frame := self._slots[0].frame) is None:
            return None
        self._slots.popleft()
        self._ahead -= 1
        self._held = 0
        performance = self._performances[frame.generation]
        performance.heard = frame.heard
        if performance.started_at is None:
            performance.started_at = self._monotonic()
        return frame

    def _skip(self, count: int) -> None:
        """Let `count` ticks pass unplayed. Nothing new arrives meanwhile, so beyond what is booked the loop just moves on."""
        before = min(count, max(0, self._slots[0].earliest - self._number - 1)) if self._slots else count
        self._let_pass(before)
        eventful = min(count - before, len(self._slots) + HOLD_TICKS)
        for _ in range(eventful):
            self._step(self._number + 1)
        self._let_pass(count - before - eventful)

    def _let_pass(self, count: int) -> None:
        self._number += count
        self._position += count

    def _forget(self, newest: int) -> None:
        """What is older than this tick, and the tick itself, is final."""
        while self._memory and (oldest := next(iter(self._memory))) <= newest:
            self._film(self._memory.pop(oldest))

    def _film(self, played: PlayedFrame) -> None:
        if self._camera is not None and played.number > self._filmed:
            self._filmed = played.number
            self._camera(played)

    # ------------------------------------------------------------ silence and accounts

    def _silence(self, generation: Generation) -> None:
        """Silence what the sound track has not taken yet, after a fade-out of 5 ms."""
        sent = self._pieces_sent * PIECE_SAMPLES  # samples since the epoch
        for number, played in self._memory.items():
            cut = sent - number * SAMPLES_PER_FRAME
            if played.generation is generation and cut < SAMPLES_PER_FRAME:
                faded = _fade_out(played.sound, cut) if cut >= 0 else SILENCE
                self._memory[number] = replace(played, sound=faded)
        performance = self._performances.get(generation)
        if performance is not None and performance.last_audible_at is not None:
            silent_from = self.epoch + (sent + FADE_OUT_SAMPLES) / SAMPLE_RATE
            performance.last_audible_at = min(performance.last_audible_at, silent_from)

    def _note_audible(self, played: PlayedFrame) -> None:
        audible = np.flatnonzero(played.sound)
        if len(audible) and played.generation is not None:
            sample = played.number * SAMPLES_PER_FRAME + int(audible[-1]) + 1
            self._performances[played.generation].last_audible_at = self.epoch + sample / SAMPLE_RATE

    def _announce_change(self) -> None:
        self._change.set()  # wakes everyone who waits now …
        self._change.clear()  # … and lets the next ones wait for the next change

    async def _change_to_come(self) -> None:
        await self._change.wait()


def _fade_out(sound: Pcm, start: int) -> Pcm:
    """A copy that falls from full loudness at sample `start` to silence 240 samples later."""
    faded = sound.copy()
    tail = faded[start : start + FADE_OUT_SAMPLES]
    tail[...] = tail * np.linspace(1, 0, len(tail), dtype=np.float32)
    faded[start + FADE_OUT_SAMPLES :] = 0
    return faded
