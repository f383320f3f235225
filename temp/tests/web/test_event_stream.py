"""Telling events to somebody who may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp_sse import EventSourceResponse, sse_response

from gpuserver.errors import GpuserverError
from gpuserver.web.event_stream import tell_while_heard

AiohttpClient = Callable[..., Awaitable["TestClient[web.Request, web.Application]"]]


class Unheard(EventSourceResponse):
    """A stream whose client has not left yet, and to which nothing is written."""

    async def wait(self) -> None:
        await asyncio.Event().wait()


async def fails(error: Exception) -> None:
    raise error


async def test_a_failed_story_fails_for_its_teller() -> None:
    with pytest.raises(GpuserverError, match="The story broke off"):
        await tell_while_heard(Unheard(), fails(GpuserverError("The story broke off.")))


async def test_a_client_that_leaves_in_mid_event_is_no_error() -> None:
    await tell_while_heard(Unheard(), fails(ConnectionResetError()))


async def test_a_story_whose_client_leaves_is_broken_off(aiohttp_client: AiohttpClient) -> None:
    broken_off = asyncio.Event()

    async def endless(stream: EventSourceResponse) -> None:
        try:
            await stream.send("once upon a time")
            await asyncio.Event().wait()
        finally:
            broken_off.set()

    async def tell(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, ping_interval=0.01) as stream:
            await tell_while_heard(stream, endless(stream))
        return stream

    app = web.Application()
    app.router.add_get("/", tell)
    client = await aiohttp_client(app)
    answer = await client.get("/")
    assert b"once upon a time" in await answer.content.readline()
    answer.close()
    async with asyncio.timeout(10):
        await broken_off.wait()
