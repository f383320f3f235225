"""Media workers behind a real router: small applications on sockets, and processes that are none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import WSMsgType, web

from gpuserver.config import Settings
from gpuserver.errors import SessionNotFound, Unauthorized
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.renderers import Renderers
from gpuserver.media_router.server import create_app
from gpuserver.media_router.worker_client import WorkerClient
from gpuserver.session_names import NAME_HEADER, new_number, worker_of_id
from gpuserver.web.auth import INTERNAL_HEADER, engine_token_of, require_internal
from gpuserver.web.problem import problem_middleware
from gpuserver.wire import CreateSession, SessionCreated, SessionInfo, SessionList, WebRtcConfig

SECRET = "the internal secret"
TOKEN = "the-engine-token"
INTERNAL = {INTERNAL_HEADER: SECRET}


class FakeProcess:
    """Implements media_router.fleet.Process. failure: what run() raises at once."""

    def __init__(self, *, failure: Exception | None = None, stubborn: bool = False):
        self.ready = asyncio.Event()
        self.serves = False
        self.restarts = 0
        self.killed = False
        self._failure = failure
        self._stubborn = stubborn
        self._ended = asyncio.Event()

    async def run(self) -> None:
        if self._failure is not None:
            raise self._failure
        self.serves = True
        self.ready.set()
        await self._ended.wait()
        self.serves = False

    def stop(self, number: signal.Signals) -> None:
        if not self._stubborn:
            self._ended.set()

    def kill(self) -> None:
        self.killed = True
        self._ended.set()


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the worker got it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(eq=False)
class FakeWorker:
    """Makes sessions as soon as `may_create` is set, lists them as soon as `may_list` is; answers everything else with its number.

    components: of /health.
    """

    number: int
    process: FakeProcess = field(default_factory=FakeProcess)
    components: dict[str, object] = field(default_factory=lambda: {"voice": {"voice": "hibari"}, "peers": {"count": 1}})
    sessions: dict[str, SessionInfo] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    may_create: asyncio.Event = field(default_factory=asyncio.Event)
    may_list: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    async def start(self, socket: Path) -> None:
        self.may_create.set()
        self.may_list.set()
        app = web.Application(middlewares=[problem_middleware])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/sessions", self._create)
        app.router.add_get("/v1/sessions", self._list)
        app.router.add_delete("/v1/sessions/{session_id}", self._delete)
        app.router.add_get("/ws/{session_id}", self._websocket)
        app.router.add_post("/v1/audio/speech", self._speak)
        app.router.add_post("/whep/{avatar_id:[a-z]+}", self._play)
        app.router.add_route("*", "/{path:.*}", self._anything)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(socket)).start()

    async def die(self, *, noticed: bool = True) -> None:
        """Be gone, connections and all. noticed: the router knows before anybody calls."""
        assert self.runner is not None
        assert self.runner.server is not None
        if noticed:
            self.process.serves = False
        for connection in list(self.runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self.runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        body = {"status": "healthy", "active_sessions": len(self.sessions), "components": self.components}
        return web.json_response(body)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=f"# HELP sessions Sessions.\n# TYPE sessions gauge\nsessions {self.number}.0\n")

    async def _create(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        body = CreateSession.model_validate_json(await request.read())
        await self.may_create.wait()
        session_id = request.headers[NAME_HEADER]
        assert worker_of_id(session_id) == self.number
        self._add(session_id, body.avatar_id or "demo")
        created = SessionCreated(
            session_id=session_id, engine_url="ws://inside/ws", engine_token=TOKEN, avatar_id="demo", webrtc=WebRtcConfig()
        )
        headers = {"Location": f"/v1/sessions/{session_id}"}
        return web.Response(text=created.model_dump_json(), status=201, content_type="application/json", headers=headers)

    async def _play(self, request: web.Request) -> web.Response:
        self._add(request.headers[NAME_HEADER], request.match_info["avatar_id"])
        response = web.Response(text="answer", status=201, content_type="application/sdp")
        response.headers["Location"] = f"/whep/sessions/{request.headers[NAME_HEADER]}"
        response.headers.add("Link", "<stun:one>")
        response.headers.add("Link", "<turn:two>")
        return response

    def _add(self, session_id: str, avatar_id: str) -> None:
        self.sessions[session_id] = SessionInfo(
            session_id=session_id, tutor_id="1", student_id="2", avatar_id=avatar_id,
            created_at=datetime.now(UTC), idle_seconds=0.0, connected=False, speaking=False,
        )  # fmt: skip

    async def _list(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        await self.may_list.wait()
        return web.json_response(text=SessionList(total=len(self.sessions), sessions=list(self.sessions.values())).model_dump_json())

    async def _delete(self, request: web.Request) -> web.Response:
        require_internal(request, SECRET)
        if self.sessions.pop(request.match_info["session_id"], None) is None:
            raise SessionNotFound("There is no session with this id.")
        return web.Response(status=204)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        if engine_token_of(request) != TOKEN:
            raise Unauthorized("The token does not fit.")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{self.number}: {message.data}")
        return socket

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/wav", "X-Voice": "hibari"})
        await response.prepare(request)
        await response.write(b"sound")
        if b"break" in await request.read():
            assert request.transport is not None
            request.transport.abort()
        await response.write_eof()
        return response

    async def _anything(self, request: web.Request) -> web.Response:
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), await request.read()))
        if request.path == "/offer":
            self._add(request.headers[NAME_HEADER], "demo")
            return web.json_response({"sdp": "answer", "type": "answer", "sessionid": new_number(self.number)})
        return web.json_response({"worker": self.number}, headers={"ETag": '"e"'})


@dataclass(frozen=True, slots=True)
class Routed:
    """A router's application with its workers, which serve once the application does."""

    app: web.Application
    workers: list[FakeWorker]


@asynccontextmanager
async def routed(settings: Settings, folder: Path, count: int = 2) -> AsyncIterator[Routed]:
    workers = [FakeWorker(number) for number in range(1, count + 1)]
    try:
        for worker in workers:
            await worker.start(folder / f"{worker.number}.sock")
        fleet = Fleet([Worker(each.number, each.process, WorkerClient(folder / f"{each.number}.sock", SECRET)) for each in workers])
        yield Routed(create_app(settings, fleet, Renderers()), workers)
    finally:
        for worker in workers:
            if worker.runner is not None:
                await worker.runner.cleanup()
