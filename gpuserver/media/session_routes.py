"""/v1/sessions… of the media server: the management API makes and ends sessions, browsers connect to them."""

from __future__ import annotations

from typing import cast, get_args

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.errors import Cancelled, InvalidInput
from gpuserver.media.access import given_id, session_of
from gpuserver.media.mouths import Mouths
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.messages import SessionEnd
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.web.answers import json_answer
from gpuserver.web.body import SDP_LIMIT, read_body
from gpuserver.web.interim import has_left
from gpuserver.web.keys import internal, key_in_query, takes_engine_token
from gpuserver.web.origin import engine_url, public_url
from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import CreateSession, IceCandidate, Offer, SessionCreated, SessionList


def add_session_routes(app: web.Application, registry: SessionRegistry, peers: Peers, settings: Settings, mouths: Mouths) -> None:
    """Serve /v1/sessions…, the signalling and the WebRTC configuration from `app`."""
    routes = SessionRoutes(registry, peers, settings, mouths)
    app.router.add_post("/v1/sessions", routes.create)
    app.router.add_get("/v1/sessions", routes.list)
    app.router.add_get("/v1/sessions/{session_id}", routes.show)
    app.router.add_delete("/v1/sessions/{session_id}", routes.delete)
    app.router.add_post("/v1/sessions/{session_id}/offer", routes.offer)
    app.router.add_patch("/v1/sessions/{session_id}/ice", routes.ice)
    app.router.add_get("/v1/webrtc/config", routes.webrtc)


class SessionRoutes:
    """Sessions are made and ended by the management API alone; their signalling is for whoever has the engine_token."""

    def __init__(self, registry: SessionRegistry, peers: Peers, settings: Settings, mouths: Mouths):
        self._registry = registry
        self._peers = peers
        self._settings = settings
        self._mouths = mouths

    @internal
    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/sessions. engine_url names this server; the management API puts its own address there."""
        session = await self._registry.create(await read_body(request, CreateSession), session_id=given_id(request))
        if has_left(request):  # nobody knows of the session: it would hold its place until it has been idle for long
            await self._registry.delete(session.session_id)
            raise Cancelled("The client went away.")
        engine, engine_fallback = self._mouths.engine_for(session.avatar)
        created = SessionCreated(
            session_id=session.session_id,
            engine_url=engine_url(public_url(request, self._settings), session.session_id),
            engine_token=session.engine_token,
            avatar_id=session.avatar_id,
            engine=engine,
            engine_fallback=engine_fallback,
            webrtc=webrtc_config(self._settings),
        )
        return json_answer(created, status=201, headers={"Location": f"/v1/sessions/{session.session_id}"})

    @internal
    async def list(self, _request: web.Request) -> web.Response:
        """GET /v1/sessions."""
        infos = [session.info() for session in self._registry.list()]
        return json_answer(SessionList(total=len(infos), sessions=infos))

    @internal
    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/sessions/{session_id}."""
        return json_answer(self._registry.get(request.match_info["session_id"]).info())

    @internal
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/sessions/{session_id}; ?reason= is what its clients are told, a SessionEnd."""
        reason = request.query.get("reason", "deleted")
        if reason not in get_args(SessionEnd):
            raise InvalidInput("reason: there is no such end of a session.", advice=f"Use one of: {', '.join(get_args(SessionEnd))}.")
        await self._registry.delete(request.match_info["session_id"], reason)
        return web.Response(status=204)

    @takes_engine_token
    async def offer(self, request: web.Request) -> web.Response:
        """POST /v1/sessions/{session_id}/offer: WebRTC's offer in, answer out."""
        session = session_of(request, self._registry)
        offer = await read_body(request, Offer, limit=SDP_LIMIT)
        return json_answer(await self._peers.answer(session, cast(Playout, session.stage), offer))

    @takes_engine_token
    async def ice(self, request: web.Request) -> web.Response:
        """PATCH /v1/sessions/{session_id}/ice: one trickled candidate."""
        session = session_of(request, self._registry)
        await self._peers.add_candidate(session, await read_body(request, IceCandidate, limit=SDP_LIMIT))
        return web.Response(status=204)

    @key_in_query
    async def webrtc(self, _request: web.Request) -> web.Response:
        """GET /v1/webrtc/config."""
        return json_answer(webrtc_config(self._settings))
