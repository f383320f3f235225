"""Connections, spoken to byte by byte: slow senders, too many of them, and what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web
from conftest import MakeSettings
from structlog.testing import capture_logs

from gpuserver.web import body, connection
from gpuserver.web.body import read_body
from gpuserver.web.connection import connection_factory
from gpuserver.web.keys import needs_key
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.wire import Offer

Speak = Callable[..., Awaitable[bytes]]
SHORT_SECONDS = 0.2
PATIENCE_SECONDS = 30.0  # of the test; the limits are SHORT_SECONDS


@pytest.fixture
async def port(make_settings: MakeSettings) -> AsyncIterator[int]:
    """Of a server with GET and POST /thing and GET /endless, made as serving.serve makes it."""

    async def thing(request: web.Request) -> web.Response:
        if request.method == "POST":
            await read_body(request, Offer)
        return web.Response(text="ok")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    app = web.Application(middlewares=middlewares(make_settings(rate_limit="off")))
    app.on_response_prepare.append(add_security_headers)
    app.router.add_route("*", "/thing", needs_key(thing))
    app.router.add_get("/endless", needs_key(endless))
    runner = web.AppRunner(app)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(connection_factory(runner), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await runner.cleanup()


async def _say(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def speak() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    speaking = asyncio.create_task(speak())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await reader.read(65536)
            if not speaking.done():  # bytes that nobody reads any more would reset the connection, and the rest of the answer with it
                speaking.cancel()
                writer.write_eof()
            return answer + await reader.read()
    finally:
        speaking.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await speaking
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _problem(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    problem = json.loads(content)
    assert head.split()[1] == str(problem["status"]).encode()
    return problem["status"], problem


async def test_headers_that_trickle_in_end_the_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", SHORT_SECONDS)
    trickle = [b"GET /thing HTTP/1.1\r\nHost: localhost\r\n", *[b"X: y\r\n"] * 100_000]
    assert await _say(port, *trickle, pause=SHORT_SECONDS / 10) == b""


async def test_silence_ends_the_connection_at_once_or_after_an_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", SHORT_SECONDS)
    assert await _say(port) == b""
    assert (await _say(port, b"GET /thing HTTP/1.1\r\nHost: localhost\r\n\r\n")).endswith(b"ok")


async def test_a_body_that_trickles_in_is_a_408_and_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "GRACE_SECONDS", SHORT_SECONDS)
    head = b"POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
    assert _problem(await _say(port, head, *[b" "] * 100_000, pause=SHORT_SECONDS / 10))[0] == 408


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET /thing HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /thing HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /thing HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET /thing HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
    ids=lambda sent: repr(sent[:60]),
)
async def test_what_is_no_http_is_a_400_that_says_so(port: int, sent: bytes) -> None:
    assert _problem(await _say(port, sent))[0] == 400


async def test_an_unknown_expectation_is_a_problem_too(port: int) -> None:
    sent = b"POST /thing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\nExpect: miracles\r\n\r\n"
    assert _problem(await _say(port, sent))[1]["type"] == "urn:gpuserver:problem:expectation-failed"


async def test_one_connection_too_many_is_told_so_and_the_others_live(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /thing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    answer = await _say(port)
    assert _problem(answer)[1]["type"] == "urn:gpuserver:problem:too-many-connections"
    assert b"Retry-After: 2" in answer
    writer.write(b"GET /thing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    await writer.wait_closed()
    assert (await _say(port, b"GET /thing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).endswith(b"ok")


@pytest.mark.parametrize("resets", [True, False], ids=["that resets", "that neither reads nor leaves"])
async def test_a_client_ends_its_answer(port: int, monkeypatch: pytest.MonkeyPatch, resets: bool) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", SHORT_SECONDS)
    with socket.socket() as client, capture_logs() as logs:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await loop.sock_recv(client, 1)
        if resets:
            client.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not logs:  # noqa: ASYNC110 - what is logged tells
                await asyncio.sleep(0.01)
    assert [(line["event"], line.get("problem")) for line in logs] == [("answer_broke_off", "cancelled"), ("request", None)]
