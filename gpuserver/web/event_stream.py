"""Server-sent events, sent for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

from aiohttp_sse import EventSourceResponse


async def tell_while_heard(stream: EventSourceResponse, telling: Coroutine[None, None, None]) -> None:
    """Run `telling`, which sends to the stream, until it ends or the client has gone. Raises what `telling` raises."""
    told = asyncio.create_task(telling)
    gone = asyncio.create_task(stream.wait())
    try:
        await asyncio.wait([told, gone], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, gone):
            task.cancel()
        await asyncio.wait([told, gone])
    if not told.cancelled():
        with suppress(ConnectionResetError):  # the client has gone in mid-event
            told.result()
