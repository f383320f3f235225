"""Reads a stream that may be waited for in vain without losing what comes later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class PatientReader(Generic[T]):
    """Unlike asyncio.timeout around anext(), a time-out leaves the stream intact. One reader at a time; ends with aclose()."""

    def __init__(self, stream: AsyncGenerator[T, None]):
        self._stream = stream
        self._coming: asyncio.Task[T | None] | None = None

    async def next(self, seconds: float) -> T | None:
        """The next item; None at the stream's end. Raises TimeoutError, and what the stream raises."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._advance(), name="next piece of a stream")
        await asyncio.wait([self._coming], timeout=max(0.0, seconds))
        if not self._coming.done():
            raise TimeoutError
        coming, self._coming = self._coming, None
        return coming.result()

    async def aclose(self) -> None:
        """Stop waiting, close the stream."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])
            if not self._coming.cancelled():
                self._coming.exception()  # retrieved; nobody waits for the piece any more
        await self._stream.aclose()

    async def _advance(self) -> T | None:
        return await anext(self._stream, None)
