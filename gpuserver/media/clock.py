"""When the next piece of a steady stream is due. A stream that is late skips; it never sleeps over the clock and never drifts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

Punctuality = Callable[[float, int], None]  # told of each piece: how late it is (seconds), how many before it were left out

EARLY_ENOUGH = 1e-6  # seconds; n * period is not exact in floating point


class Clock(Protocol):
    """The time, and a way to wait for it."""

    def now(self) -> float:
        """Seconds on a monotonic scale."""
        ...

    async def wait_until(self, deadline: float) -> None:
        """Return at `deadline`, or at once if it has passed."""
        ...


class LoopClock:
    """The running event loop's clock; with the stock loop it is time.monotonic."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait_until(self, deadline: float) -> None:
        await asyncio.sleep(max(0.0, deadline - self.now()))


class Pacer:
    """Numbers the pieces of a stream: piece n is due at epoch + n * period, whatever happened to the pieces before it.

    patience: how late a piece may be (seconds) and still be sent. Beyond it the stream skips to the piece that is due now.
    """

    def __init__(self, clock: Clock, epoch: float, period: float, patience: float, note: Punctuality = lambda lateness, left_out: None):
        self._clock = clock
        self._epoch = epoch
        self._period = period
        self._patience = patience
        self._note = note
        self._last: int | None = None
        self.skipped = 0  # pieces that were never sent because the stream was late

    async def next(self) -> int:
        """The number of the next piece, at the time it is due."""
        skipped = self.skipped
        number = self._choose()
        await self._clock.wait_until(self._due(number))
        self._last = number
        self._note(max(0.0, self._clock.now() - self._due(number)), self.skipped - skipped)
        return number

    def include(self, pieces: int) -> None:
        """As many pieces have been sent along with the last one."""
        if self._last is not None:
            self._last += pieces

    def _due(self, number: int) -> float:
        return self._epoch + number * self._period

    def _choose(self) -> int:
        now = self._clock.now()
        position = (now - self._epoch) / self._period
        if self._last is None:
            return math.ceil(position - EARLY_ENOUGH)
        following = self._last + 1
        if now - self._due(following) <= self._patience:
            return following
        current = math.floor(position + EARLY_ENOUGH)
        self.skipped += current - following
        return current
