"""GET /health of the media server: what it depends on and how full it is, at the moment of the request."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.media.mouths import Mouths
from gpuserver.media.peers import Peers
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.web.keys import public


class Reporting(Protocol):
    """A part that says for /health how it is."""

    def status(self) -> dict[str, object]: ...


def add_health_route(
    app: web.Application,
    registry: SessionRegistry,
    peers: Peers,
    settings: Settings,
    *,
    voice: Reporting,
    language_model: Reporting,
    mouths: Mouths,
    interpreter: Interpreter = OWN,
) -> None:
    """Serve /health from `app`."""

    @public
    async def health(_request: web.Request) -> web.Response:
        components = {
            "voice": voice.status(),
            "language_model": language_model.status(),
            "engine": mouths.status(),
            "renderer": mouths.renderer_status(),
            "peers": peers.status(),
        }
        if interpreter.shortfall is not None:
            components["python"] = {"fallback": interpreter.shortfall}
        body = {
            "status": "healthy",
            "service": "gpuserver-media",
            "active_sessions": registry.taken,
            "max_sessions": settings.max_sessions,
            "components": components,
        }
        return web.json_response(body)

    app.router.add_get("/health", health)
