"""A fake media server: the routes that the management API calls, without pictures, voices or models."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import WSCloseCode, WSMsgType, web

from gpuserver.errors import Full, SessionNotFound, Unauthorized
from gpuserver.web.auth import engine_token_of, require_internal
from gpuserver.web.problem import problem_middleware
from gpuserver.wire import CreateSession, SessionCreated, SessionInfo, SessionList, WebRtcConfig

SECRET = "the internal secret"
TOKEN = "the-engine-token"


class FakeMediaServer:
    """Its WebSocket echoes text and bytes; "close CODE" closes, "leave" closes as a stopping server, "die" cuts the connection."""

    def __init__(self, max_sessions: int = 2):
        self.max_sessions = max_sessions
        self.status = "healthy"  # of /health
        self.may_create = asyncio.Event()
        self.may_create.set()
        self.sessions: dict[str, SessionInfo] = {}
        self.created: list[CreateSession] = []
        self.ends: list[str | None] = []  # the reasons that sessions were deleted with
        self.ended = asyncio.Event()  # one was deleted
        self.signals: list[tuple[str, str, object]] = []
        self.closed_with: asyncio.Queue[int | None] = asyncio.Queue(100)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[problem_middleware])
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/sessions", self._create)
        app.router.add_get("/v1/voices", self._voices)
        app.router.add_get("/v1/diagnosis", self._diagnosis)
        app.router.add_get("/v1/sessions", self._list)
        app.router.add_get("/v1/sessions/{session_id}", self._show)
        app.router.add_delete("/v1/sessions/{session_id}", self._delete)
        app.router.add_post("/v1/sessions/{session_id}/offer", self._signal)
        app.router.add_patch("/v1/sessions/{session_id}/ice", self._signal)
        app.router.add_get("/ws/{session_id}", self._websocket)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        components = {"voice": {"voice": "hibari", "fallback": "edge-tts is not reachable: hibari speaks (English only)"}}
        return web.json_response({"status": self.status, "active_sessions": len(self.sessions), "components": components})

    async def _voices(self, _request: web.Request) -> web.Response:
        return web.json_response({"total": 1, "voices": [{"id": "hibari", "name": "Hibari", "language": "en", "available": True}]})

    async def _diagnosis(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"healthy": True, "findings": [{"name": "Disk", "status": "ok", "detail": "72 GB are free.", "advice": None}]}
        )

    async def _create(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        body = CreateSession.model_validate_json(await request.read())
        self.created.append(body)
        await self.may_create.wait()
        if len(self.sessions) >= self.max_sessions:
            raise Full("All slots are taken.", retry_after=9)
        session_id = f"s{len(self.created)}"
        avatar_id = body.avatar_id or "demo"
        self.sessions[session_id] = SessionInfo(
            session_id=session_id, tutor_id=body.tutor_id, student_id=body.student_id, avatar_id=avatar_id,
            created_at=datetime.now(UTC), idle_seconds=0.0, connected=False, speaking=False,
        )  # fmt: skip
        created = SessionCreated(
            session_id=session_id, engine_url=f"ws://media/ws/{session_id}", engine_token=TOKEN, avatar_id=avatar_id, webrtc=WebRtcConfig()
        )
        return web.Response(text=created.model_dump_json(), status=201, content_type="application/json")

    async def _list(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        listed = SessionList(total=len(self.sessions), sessions=list(self.sessions.values()))
        return web.Response(text=listed.model_dump_json(), content_type="application/json")

    async def _show(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        return web.Response(text=self._session(request).model_dump_json(), content_type="application/json")

    async def _delete(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        del self.sessions[self._session(request).session_id]
        self.ends.append(request.query.get("reason"))
        self.ended.set()
        return web.Response(status=204)

    async def _signal(self, request: web.Request) -> web.Response:
        session = self._authorized(request)
        body = json.loads(await request.read())
        self.signals.append((request.method, session.session_id, body))
        if request.method == "PATCH":
            return web.Response(status=204)
        return web.json_response({"sdp": "answer", "type": "answer"})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        self._authorized(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data.startswith("close "):
                await socket.close(code=int(message.data.split()[1]), message=b"as asked")
            elif message.data == "leave":
                await socket.close(code=WSCloseCode.GOING_AWAY)
            elif message.data == "die" and request.transport is not None:
                request.transport.abort()
            else:
                await socket.send_str(message.data)
        self.closed_with.put_nowait(socket.close_code)
        return socket

    def _session(self, request: web.Request) -> SessionInfo:
        session_id = request.match_info["session_id"]
        if session_id not in self.sessions:
            raise SessionNotFound(f"There is no session {session_id}.")
        return self.sessions[session_id]

    def _authorized(self, request: web.Request) -> SessionInfo:
        session = self._session(request)
        if engine_token_of(request) != TOKEN:
            raise Unauthorized("The token does not fit.")
        return session
