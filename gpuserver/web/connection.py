"""Connections: how many there may be, how long one may take to say what it wants, and problem objects for what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from gpuserver.errors import InvalidInput, TooManyConnections
from gpuserver.web.problem import CONTENT_TYPE, problem_of, problem_response

MOST_CONNECTIONS = 500  # half of the usual limit on open files, 1024: a WebSocket that is passed on takes two
# From the connection's start, or from the last answer, to the end of the next request's headers. aiohttp's timer for idle
# connections runs while headers arrive and is not set back by their bytes, so that it holds off slow senders too.
HEADER_SECONDS = 10.0
# Without an acknowledgement, or with a full receive window: a client that has vanished, or reads nothing. The kernel counts, so that
# files which it sends by itself are held to it, too. A page whose film is paused for longer asks for the rest with Range.
STALLED_SECONDS = 60.0
LINGERING_SECONDS = 2.0  # that the rest of a refused body is read, so that the client sees the refusal
RETRY_AFTER_SECONDS = 2

log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection; what it refuses before any handler sees it is a problem object too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ends the connection where nothing of an answer arrives for STALLED_SECONDS."""
        channel = transport.get_extra_info("socket")
        if channel is not None and channel.family != socket.AF_UNIX:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
        super().connection_made(transport)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP, or breaks a limit of the parser. Closes the connection."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        log.info("not_http", reason=type(exc).__name__)
        response = problem_response(InvalidInput("This is no valid HTTP request, or its headers exceed 8 kB each or 128 in number."))
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Refusals that aiohttp raises before the middlewares, such as for an Expect header."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = problem_of(resp, request)
        return await super().finish_response(request, resp, start_time)


class Refusal(asyncio.Protocol):
    """One connection too many: a problem object, and the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        error = TooManyConnections(f"There are {MOST_CONNECTIONS} already.", retry_after=RETRY_AFTER_SECONDS)
        body = json.dumps(error.problem()).encode()
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {error.retry_after}\r\nConnection: close\r\n\r\n"
        )
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(head.encode() + body)
            transport.close()


def connection_factory(runner: web.BaseRunner) -> Callable[[], asyncio.Protocol]:
    """What loop.create_server calls for every connection to the application of a runner that has been set up."""
    server, loop = runner.server, asyncio.get_running_loop()
    if server is None:
        raise RuntimeError("AppRunner.setup has not been awaited")

    def connect() -> asyncio.Protocol:
        if len(server.connections) >= MOST_CONNECTIONS:
            return Refusal()
        return Connection(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # as AppRunner passes it; ours is request_log_middleware
            keepalive_timeout=HEADER_SECONDS,
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,
        )

    return connect
