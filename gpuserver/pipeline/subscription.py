"""One listener to a session's events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from gpuserver.messages import ServerMessage

EVENTS_WAITING = 512  # some 20 s of a fast answer's tokens
TOO_SLOW = "too_slow"
LEFT = "left"


class Subscription:
    """An asynchronous iterator over the session's events, bounded: who does not keep up is let go, with a reason.

    It ends when the session ends, when its reader falls behind, or with aclose(); `reason` then says which.
    """

    def __init__(self, on_close: Callable[[Subscription], None], limit: int = EVENTS_WAITING):
        self.reason: str | None = None
        self._on_close = on_close
        self._limit = limit
        self._events: deque[ServerMessage] = deque()
        self._arrived = asyncio.Event()

    def offer(self, event: ServerMessage) -> None:
        """Hand over an event. A reader that left `limit` events waiting loses all of them and the subscription."""
        if self.reason is not None:
            return
        if len(self._events) >= self._limit:
            self._events.clear()
            self.close(TOO_SLOW)
            return
        self._events.append(event)
        self._arrived.set()

    def close(self, reason: str) -> None:
        """No further events; those that wait can still be read."""
        if self.reason is None:
            self.reason = reason
            self._arrived.set()
            self._on_close(self)

    async def aclose(self) -> None:
        """The reader leaves."""
        self._events.clear()
        self.close(LEFT)

    def __aiter__(self) -> AsyncIterator[ServerMessage]:
        return self

    async def __anext__(self) -> ServerMessage:
        while not self._events:
            if self.reason is not None:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()
