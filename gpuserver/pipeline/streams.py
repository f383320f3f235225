"""What ties the stages of a Turn together: bounded channels between tasks, and streams that are closed for certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")
CLOSING_SECONDS = 1.0  # a foreign stream that takes longer to close is given up


class Channel(Generic[T]):
    """A bounded queue from one task to another. A full one holds the writer back; `end` ends the reader's iteration."""

    def __init__(self, limit: int):
        self._queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(limit)

    async def put(self, item: T) -> None:
        await self._queue.put((item,))

    async def end(self) -> None:
        """Say that nothing more comes. Waits, as put does, while the channel is full."""
        await self._queue.put(None)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if (entry := await self._queue.get()) is None:
            raise StopAsyncIteration
        return entry[0]


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The stream, closed on the way out, so that a cancelled answer lets go of its connection at once."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            try:
                async with asyncio.timeout(CLOSING_SECONDS):
                    await close()
            except TimeoutError:
                log.warning("stream_did_not_close", stream=type(stream).__name__)
