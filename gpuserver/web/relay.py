"""/ws/{session_id}: carries WebSocket messages between a client and the process that has its session, both ways.

Each direction has one message in flight: a receiver that does not read holds back the sender, and nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from gpuserver.messages import SessionLost
from gpuserver.web.auth import engine_token_of
from gpuserver.web.keys import takes_engine_token
from gpuserver.web.session_path import session_id_of

MESSAGE_LIMIT = 1024 * 1024  # bytes of one WebSocket message
HEARTBEAT_SECONDS = 20.0  # a client that answers no ping within half of it is taken for gone
CLOSE_SECONDS = 1.0
GOODBYE_SECONDS = 0.5  # for all clients at once, when this server stops

log = structlog.get_logger(__name__)

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
# Opens a session's WebSocket, by its id and engine_token. Raises Unauthorized, SessionNotFound, Unavailable.
Connect = Callable[[str, str], AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]]


@dataclass(frozen=True, slots=True)
class Ending:
    """Which side ended the conversation, and how."""

    by_media: bool
    code: int | None  # None: without a close frame
    reason: str = ""


def add_relay_routes(app: web.Application, connect: Connect, *, lost: str) -> None:
    """Serve /ws/{session_id} and /ws/ws/{session_id}, which existing web clients use. lost: why a session is, where its process goes."""
    relay = Relay(connect, lost)
    app.router.add_get("/ws/{session_id}", relay.serve)
    app.router.add_get("/ws/ws/{session_id}", relay.serve)
    app.on_shutdown.append(relay.close)


class Relay:
    def __init__(self, connect: Connect, lost: str):
        self._connect = connect
        self._lost = lost
        self._clients: set[web.WebSocketResponse] = set()

    @takes_engine_token
    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One client's connection, from its upgrade to its end."""
        session_id = session_id_of(request)
        # autoclose would drop the connection before the media server has heard of the client's close.
        client = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_LIMIT, timeout=CLOSE_SECONDS, autoclose=False)
        if not client.can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(reason="This address speaks WebSocket only")
        async with self._connect(session_id, engine_token_of(request)) as media:
            await client.prepare(request)
            self._clients.add(client)
            try:
                ending = await _converse(client, media)
                log.info("websocket_ended", session_id=session_id, by_media=ending.by_media, code=ending.code)
                with suppress(TimeoutError):  # a side that reads nothing takes no close frame either
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await _pass_on(ending, client, media, self._lost)
            finally:
                self._clients.discard(client)
        return client

    async def close(self, _app: web.Application) -> None:
        """Tell all clients that this server goes away; their sessions live on in the media server."""
        closing = [asyncio.wait_for(client.close(code=WSCloseCode.GOING_AWAY), GOODBYE_SECONDS) for client in self._clients]
        await asyncio.gather(*closing, return_exceptions=True)


async def _converse(client: web.WebSocketResponse, media: aiohttp.ClientWebSocketResponse) -> Ending:
    """Carry messages both ways until one side ends."""
    return await _first(_carry(client, media, by_media=False), _carry(media, client, by_media=True))


async def _first(*pumps: Coroutine[None, None, Ending]) -> Ending:
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(source: Socket, sink: Socket, *, by_media: bool) -> Ending:
    while True:
        message = await source.receive()
        try:
            if message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type is WSMsgType.CLOSE:
                return Ending(by_media, message.data, message.extra or "")
            else:  # ERROR, CLOSING, CLOSED
                return Ending(by_media, source.close_code)
        except ConnectionError:  # the sink is gone
            return Ending(not by_media, None)


async def _pass_on(ending: Ending, client: web.WebSocketResponse, media: aiohttp.ClientWebSocketResponse, lost: str) -> None:
    """End the other side in the same way."""
    if not ending.by_media:
        await media.close(code=_sendable(ending.code))
        await client.close(code=_sendable(ending.code))
    elif ending.code in {None, WSCloseCode.GOING_AWAY, WSCloseCode.ABNORMAL_CLOSURE}:
        with suppress(ConnectionError):
            await client.send_str(SessionLost(reason=f"{lost} Create a new session.").model_dump_json())
        await client.close(code=WSCloseCode.SERVICE_RESTART, message=b"session lost")
    else:
        await client.close(code=_sendable(ending.code), message=ending.reason.encode()[:123])


def _sendable(code: int | None) -> int:
    """The code itself if it may stand in a close frame (RFC 6455, 7.4), else 1000."""
    if code is not None and (code in range(3000, 5000) or (code in range(1000, 1015) and code not in {1004, 1005, 1006})):
        return code
    return WSCloseCode.OK
