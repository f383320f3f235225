"""The gateway alone, in this process, in front of a fake lip-sync service, for tests with default httpx clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import MakeSettings
from fake_avatar_manager import FakeAvatarManager

from gpuserver.config import Settings
from gpuserver.errors import KeyRequired
from gpuserver.gateway import server
from gpuserver.web.avatar_routes import add_avatar_routes
from gpuserver.web.problem import problem_middleware

NOWHERE = "http://127.0.0.1:9"
ANSWER_SDP = {"sdp": "v=0 answer", "type": "answer", "sessionid": 7}


class FakeLipSyncService:
    """The media server's avatar routes on a fake manager, and calls of LiveTalking's that note what they were sent.

    required: headers that every call must carry with these values.
    """

    def __init__(self, settings: Settings):
        self.manager = FakeAvatarManager(settings)
        self.required: dict[str, str] = {}
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.preloaded: list[str] = []
        self.sessions: dict[str, str] = {}  # by session id: the avatar it shows
        self.first_chunk = asyncio.Event()  # of a body that is still on its way
        self.may_answer = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[problem_middleware, self._check])
        app.router.add_get("/health", self._health)
        app.router.add_get("/tts/models", self._health)
        add_avatar_routes(app, self.manager, self, max_upload_mb=1)
        app.router.add_post("/v1/avatars/{avatar_id}/preload", self._preload)
        app.router.add_route("*", "/offer", self._offer)
        app.router.add_post("/humanaudio", self._read_slowly)
        app.router.add_get("/record", self._record)
        app.router.add_get("/is_speaking", self._broken)
        app.router.add_route("*", "/whep/{path:.*}", self._whep)
        return app

    def break_off(self) -> None:
        """Drop the connection of the newest request."""
        transport = self.requests[-1].transport
        assert transport is not None
        transport.abort()

    async def showing(self, avatar_id: str) -> list[str]:
        return [session_id for session_id, shown in self.sessions.items() if shown == avatar_id]

    async def end(self, session_ids: list[str]) -> None:
        for session_id in session_ids:
            del self.sessions[session_id]

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(request)
        if request.path != "/health" and any(request.headers.get(name) != value for name, value in self.required.items()):
            raise KeyRequired("This call needs an API key.")
        response: web.StreamResponse = await handler(request)
        return response

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _preload(self, request: web.Request) -> web.Response:
        self.manager.info(request.match_info["avatar_id"])
        self.preloaded.append(request.match_info["avatar_id"])
        return web.json_response({"status": "success"})

    async def _offer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        return web.json_response(ANSWER_SDP, headers={"Set-Cookie": "inner=1", "Server": "inner/1.0", "X-Inner": "1", "ETag": '"e"'})

    async def _read_slowly(self, request: web.Request) -> web.Response:
        body = await request.content.readany()
        self.first_chunk.set()
        async for chunk in request.content.iter_any():
            body += chunk
        self.bodies.append(body)
        return web.json_response({"code": 0, "msg": "ok"})

    async def _record(self, request: web.Request) -> web.StreamResponse:
        """An answer in two parts, the second one when the test allows it."""
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        await response.write(b"first")
        await self.may_answer.wait()
        await response.write(b"second")
        return response

    async def _broken(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _whep(self, request: web.Request) -> web.Response:
        location = request.query.get("location", f"/whep/{request.match_info['path']}/1")
        return web.Response(status=201, text=request.method, headers={"Location": location})


@dataclass
class Rig:
    """client: a default httpx client at the gateway's address."""

    client: httpx.AsyncClient
    service: FakeLipSyncService
    service_server: TestServer
    gateway: TestServer


@asynccontextmanager
async def gateway_rig(make_settings: MakeSettings, tmp_path: Path, **overrides: Any) -> AsyncIterator[Rig]:
    """Both, started. overrides: settings of the gateway."""
    fake = FakeLipSyncService(make_settings(avatars_dir=tmp_path / "service" / "avatars"))
    fake.manager.start()
    service_server = TestServer(fake.app())
    async with service_server:
        url = f"http://127.0.0.1:{service_server.port}"
        settings = make_settings(**({"lipsync_service_url": url, "tts_service_url": url, "llm": "echo"} | overrides))
        gateway = TestServer(server.create_app(settings))
        async with (
            gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as client,
        ):
            yield Rig(client, fake, service_server, gateway)
