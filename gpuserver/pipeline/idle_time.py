"""How long nothing has been heard of somebody, and what happens when that is too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleTime:
    """Begins inside the event loop, by its clock. on_end: called once `limit` seconds have passed without a sign of life.

    busy: asked then; being busy is a sign of life.
    """

    def __init__(self, limit: float, on_end: Callable[[], object], busy: Callable[[], bool]):
        self._limit = limit
        self._on_end = on_end
        self._busy = busy
        self._loop = asyncio.get_running_loop()
        self._last_sign = self._loop.time()
        self._timer = self._loop.call_later(limit, self._check)

    @property
    def seconds(self) -> float:
        """Since the last sign of life."""
        return self._loop.time() - self._last_sign

    def touch(self) -> None:
        """A sign of life: the time begins anew."""
        self._last_sign = self._loop.time()

    def cancel(self) -> None:
        """on_end is not called any more."""
        self._timer.cancel()

    def _check(self) -> None:
        """The time may be over; a sign of life has moved its end."""
        if self._busy():
            self.touch()
        remaining = self._limit - self.seconds
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._check)
        else:
            self._on_end()
