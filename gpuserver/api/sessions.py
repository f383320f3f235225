"""/v1/sessions and the signalling: passed on to the media server, where sessions live."""

from __future__ import annotations

from aiohttp import web

from gpuserver.api.media_client import MediaClient
from gpuserver.config import Settings
from gpuserver.errors import Cancelled
from gpuserver.web.answers import json_answer
from gpuserver.web.auth import engine_token_of
from gpuserver.web.body import SDP_LIMIT, read_body, read_limited
from gpuserver.web.interim import has_left
from gpuserver.web.keys import key_in_query, needs_key, takes_engine_token
from gpuserver.web.origin import engine_url, public_url
from gpuserver.web.session_path import session_id_of
from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import CreateSession, SessionCreated


def add_session_routes(app: web.Application, media: MediaClient, settings: Settings) -> None:
    """Serve /v1/sessions…, the signalling and the WebRTC configuration from `app`."""
    routes = SessionRoutes(media, settings)
    app.router.add_post("/v1/sessions", routes.create)
    app.router.add_get("/v1/sessions", routes.pass_on)
    app.router.add_get("/v1/sessions/{session_id}", routes.pass_on)
    app.router.add_delete("/v1/sessions/{session_id}", routes.pass_on)
    app.router.add_post("/v1/sessions/{session_id}/offer", routes.signal)
    app.router.add_patch("/v1/sessions/{session_id}/ice", routes.signal)
    for path in ("/v1/webrtc/config", "/api/webrtc/config"):
        app.router.add_get(path, routes.webrtc)


class SessionRoutes:
    def __init__(self, media: MediaClient, settings: Settings):
        self._media = media
        self._settings = settings

    @needs_key
    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/sessions: made by the media server; engine_url names the address that the client can reach."""
        base = public_url(request, self._settings)
        body = await read_body(request, CreateSession)
        answer = await self._media.send("POST", "/v1/sessions", body=body.model_dump_json().encode())
        if answer.status != 201:
            return answer.response()
        session = SessionCreated.model_validate_json(answer.body)
        if has_left(request):  # as in the media server: nobody knows of the session
            await self._media.send("DELETE", f"/v1/sessions/{session.session_id}")
            raise Cancelled("The client went away.")
        session = session.model_copy(update={"engine_url": engine_url(base, session.session_id)})
        return json_answer(session, status=201, headers={"Location": f"/v1/sessions/{session.session_id}"})

    @needs_key
    async def pass_on(self, request: web.Request) -> web.Response:
        """GET /v1/sessions; GET and DELETE /v1/sessions/{session_id}."""
        path = "/v1/sessions"
        if "session_id" in request.match_info:
            path += f"/{session_id_of(request)}"
        return (await self._media.send(request.method, path)).response()

    @takes_engine_token
    async def signal(self, request: web.Request) -> web.Response:
        """POST …/offer and PATCH …/ice, with the browser's own token."""
        path = f"/v1/sessions/{session_id_of(request)}/{request.path.rpartition('/')[2]}"
        body = await read_limited(request, SDP_LIMIT)
        return (await self._media.send(request.method, path, body=body, token=engine_token_of(request))).response()

    @key_in_query
    async def webrtc(self, _request: web.Request) -> web.Response:
        """GET /v1/webrtc/config."""
        return json_answer(webrtc_config(self._settings))
