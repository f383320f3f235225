"""GET /health of the media server: what it depends on and how full it is, at the moment of the request."""

from __future__ import annotations

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.media.doctor.doctor import add_diagnosis_route
from gpuserver.media.mouths import Mouths
from gpuserver.media.peers import Peers
from gpuserver.pipeline.language_model import ReportingModel
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.pipeline.voice import ReportingVoice
from gpuserver.web.keys import public


def add_health_route(
    app: web.Application,
    registry: SessionRegistry,
    peers: Peers,
    settings: Settings,
    *,
    voice: ReportingVoice,
    language_model: ReportingModel,
    mouths: Mouths,
    interpreter: Interpreter = OWN,
) -> None:
    """Serve /health and /v1/diagnosis from `app`."""

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
    add_diagnosis_route(app, settings, peers.network, voice, language_model)
