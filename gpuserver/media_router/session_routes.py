"""/v1/sessions…, /whep… and the lists of sessions: each call goes to the worker that has the session, a new one where there is room."""

from __future__ import annotations

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.media_router.fleet import Fleet
from gpuserver.media_router.forwarding import forward, whole
from gpuserver.media_router.placement import Placement
from gpuserver.media_router.worker_client import WorkerGone, session_gone
from gpuserver.web.answers import json_answer
from gpuserver.web.body import JSON_LIMIT, SDP_LIMIT, read_limited
from gpuserver.web.keys import internal, key_in_query, takes_engine_token
from gpuserver.web.origin import engine_url, public_url
from gpuserver.web.session_path import session_id_of
from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import SessionCreated, SessionList


def add_session_routes(app: web.Application, fleet: Fleet, placement: Placement, settings: Settings) -> None:
    """Serve sessions, their signalling, WHEP and the WebRTC configuration from `app`."""
    routes = SessionRoutes(fleet, placement, settings)
    app.router.add_post("/v1/sessions", routes.create)
    app.router.add_get("/v1/sessions", routes.list)
    app.router.add_get("/v1/sessions/{session_id}", routes.manage)
    app.router.add_delete("/v1/sessions/{session_id}", routes.manage)
    app.router.add_post("/v1/sessions/{session_id}/offer", routes.signal)
    app.router.add_patch("/v1/sessions/{session_id}/ice", routes.signal)
    app.router.add_get("/v1/webrtc/config", routes.webrtc)
    app.router.add_post("/whep/{avatar_id:[A-Za-z0-9_-]{1,64}}", routes.play)
    app.router.add_patch("/whep/sessions/{session_id}", routes.signal)
    app.router.add_delete("/whep/sessions/{session_id}", routes.signal)
    for action in ("say", "ask", "interrupt"):
        app.router.add_post(f"/whep/sessions/{{session_id}}/{action}", routes.speak)


class SessionRoutes:
    """One method per kind of access; the worker does the rest."""

    def __init__(self, fleet: Fleet, placement: Placement, settings: Settings):
        self._fleet = fleet
        self._placement = placement
        self._settings = settings

    @internal
    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/sessions; engine_url names the address that was called."""
        base = public_url(request, self._settings)
        answer = await self._placement.create(request, await read_limited(request, JSON_LIMIT))
        if answer.status != 201:
            return whole(answer)
        session = SessionCreated.model_validate_json(answer.body)
        session = session.model_copy(update={"engine_url": engine_url(base, session.session_id)})
        response = whole(answer)
        response.text = session.model_dump_json()
        return response

    @internal
    async def list(self, _request: web.Request) -> web.Response:
        """GET /v1/sessions: those of all workers."""
        infos = await self._placement.sessions()
        return json_answer(SessionList(total=len(infos), sessions=infos))

    @internal
    async def manage(self, request: web.Request) -> web.StreamResponse:
        """GET and DELETE /v1/sessions/{session_id}."""
        return await self._to_its_worker(request)

    @takes_engine_token
    async def signal(self, request: web.Request) -> web.StreamResponse:
        """POST …/offer, PATCH …/ice; WHEP's PATCH and DELETE. The worker checks the token."""
        return await self._to_its_worker(request)

    @key_in_query
    async def play(self, request: web.Request) -> web.Response:
        """POST /whep/{avatar_id}."""
        return whole(await self._placement.create(request, await read_limited(request, SDP_LIMIT)))

    @key_in_query
    async def speak(self, request: web.Request) -> web.StreamResponse:
        """POST /whep/sessions/{session_id}/say, /ask, /interrupt."""
        return await self._to_its_worker(request)

    @key_in_query
    async def webrtc(self, _request: web.Request) -> web.Response:
        """GET /v1/webrtc/config."""
        return json_answer(webrtc_config(self._settings))

    async def _to_its_worker(self, request: web.Request) -> web.StreamResponse:
        try:
            return await forward(request, self._fleet.of_session(session_id_of(request)).client)
        except WorkerGone as error:
            raise session_gone() from error
