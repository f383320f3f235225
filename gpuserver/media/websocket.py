"""/ws/{session_id}: a client's questions, commands and signalling in, the session's events out. JSON in text frames."""

from __future__ import annotations

import asyncio
from typing import cast

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from pydantic import BaseModel, TypeAdapter, ValidationError

from gpuserver.errors import GpuserverError, InvalidInput
from gpuserver.media.access import session_of
from gpuserver.media.message_limits import MessageLimits
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.sdp import answer_candidates
from gpuserver.messages import (
    Ask,
    ClientMessage,
    Configure,
    ErrorEvent,
    Interrupt,
    LegacyText,
    Ping,
    Pong,
    Say,
    WebRtcAnswer,
    WebRtcIceCandidate,
    WebRtcOffer,
    WebRtcServerCandidate,
)
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.pipeline.subscription import TOO_SLOW, Subscription
from gpuserver.web.body import parse_json
from gpuserver.web.keys import takes_engine_token
from gpuserver.web.problem import invalid_input
from gpuserver.wire import Offer

HEARTBEAT_SECONDS = 20.0  # proxies close a silent connection after 60 s
MAX_MESSAGE_BYTES = 256 * 1024
CLOSE_SECONDS = 1.0  # for the client's half of the closing handshake
SESSION_ENDED = 4404  # close code of our own: the session is over for good
CLOSE_CODES = {"shutdown": WSCloseCode.SERVICE_RESTART, TOO_SLOW: WSCloseCode.TRY_AGAIN_LATER}

CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)

log = structlog.get_logger(__name__)


def add_websocket_routes(app: web.Application, registry: SessionRegistry, peers: Peers, limits: MessageLimits) -> None:
    """Serve /ws/{session_id}, and /ws/ws/{session_id}, which existing web clients use."""

    @takes_engine_token
    async def serve(request: web.Request) -> web.WebSocketResponse:
        return await SessionSocket(session_of(request, registry), peers, limits).run(request)

    app.router.add_get("/ws/{session_id}", serve)
    app.router.add_get("/ws/ws/{session_id}", serve)


class SessionSocket:
    """One WebSocket of one session; a session may have several."""

    def __init__(self, session: Session, peers: Peers, limits: MessageLimits):
        self._session = session
        self._peers = peers
        self._limits = limits
        self._answering: asyncio.Task[None] | None = None
        self._socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, timeout=CLOSE_SECONDS)

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Serve the socket until the client goes or the session ends."""
        subscription = self._session.subscribe()
        try:
            await self._socket.prepare(request)
            forwarding = asyncio.create_task(self._forward(subscription), name="websocket-events")
            try:
                async for message in self._socket:
                    if self._limits.is_flood(self._session.session_id):
                        await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many messages")
                        break
                    await self._receive(message)
            except ConnectionError:
                log.info("websocket_lost", session_id=self._session.session_id)
            finally:
                tasks = [task for task in (forwarding, self._answering) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        finally:
            await subscription.aclose()
        return self._socket

    async def _forward(self, subscription: Subscription) -> None:
        """Send the session's events; where they end, the socket ends."""
        try:
            async for event in subscription:
                await self._send(event)
        except ConnectionError:
            return  # the client has gone; the receiving side ends
        await self._socket.close(code=CLOSE_CODES.get(subscription.reason or "", SESSION_ENDED))

    async def _receive(self, message: WSMessage) -> None:
        try:
            if message.type is not WSMsgType.TEXT:
                raise InvalidInput("Only text frames are understood.")
            await self._act(cast(str, message.data))
        except GpuserverError as error:
            await self._refuse(error)

    async def _act(self, text: str) -> None:
        parse_json(text)
        try:
            message = CLIENT_MESSAGE.validate_json(text)
        except ValidationError as error:
            raise invalid_input(error) from error
        self._limits.check(self._session.session_id, message)
        match message:
            case Ask():
                await self._session.ask(message.text, queue=message.queue)
            case Say():
                await self._session.say(message.text, queue=message.queue)
            case LegacyText():
                await self._session.ask(message.content)
            case Interrupt():
                await self._session.interrupt()
            case Configure():
                self._session.configure(voice=message.voice, rate=message.rate, model=message.model)
            case WebRtcOffer():
                await self._begin_answer(message)
            case WebRtcIceCandidate():
                await self._peers.add_candidate(self._session, message.candidate)
            case Ping():
                await self._send(Pong())

    async def _begin_answer(self, message: WebRtcOffer) -> None:
        """Answer beside the messages that follow: with a TURN server it takes seconds, and an interruption must not wait for it."""
        if self._answering is not None:
            await asyncio.wait([self._answering])  # one offer at a time
        self._answering = asyncio.create_task(self._answer(message), name="websocket-answer")
        await asyncio.sleep(0)  # it has begun before the next message is read: what follows belongs to this offer

    async def _answer(self, message: WebRtcOffer) -> None:
        """Answer, then repeat our candidates one by one for clients that take them only so."""
        playout = cast(Playout, self._session.stage)
        try:
            answer = await self._peers.answer(self._session, playout, Offer(sdp=message.sdp, type="offer"))
            await self._send(WebRtcAnswer(sdp=answer.sdp))
            for candidate in answer_candidates(answer.sdp):
                await self._send(WebRtcServerCandidate(candidate=candidate))
            await self._send(WebRtcServerCandidate(candidate=None))
        except GpuserverError as error:
            await self._refuse(error)
        except ConnectionError:
            return  # the client has gone; the receiving side ends
        except Exception:  # nobody awaits this task before the socket closes
            log.exception("offer_failed", session_id=self._session.session_id)
            await self._refuse(GpuserverError("The offer could not be answered."))

    async def _refuse(self, error: GpuserverError) -> None:
        await self._send(ErrorEvent(error=error.problem()))

    async def _send(self, event: BaseModel) -> None:
        if not self._socket.closed:
            await self._socket.send_str(event.model_dump_json())
