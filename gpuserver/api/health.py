"""GET /health: this process, the media server and what they depend on, as they are at the moment of the request."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gpuserver.api.media_client import MediaClient
from gpuserver.config import Settings
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.web.keys import public


def add_health_route(app: web.Application, media: MediaClient, manager: AvatarManager, settings: Settings) -> None:
    """Serve /health: 200, also while only some of several media workers serve, or 503 while the media server is down."""

    @public
    async def health(_request: web.Request) -> web.Response:
        answer, avatar_ids = await asyncio.gather(media.health(), asyncio.to_thread(manager.ids))
        known = answer or {}
        up = answer is not None and known.get("status") != "unhealthy"
        components = known.get("components")
        body = {
            "status": known.get("status", "healthy") if up else "unhealthy",
            "service": "gpuserver",
            "active_sessions": known.get("active_sessions", 0),
            "max_sessions": settings.max_sessions,
            "components": {
                **(components if isinstance(components, dict) else {}),
                "media_server": {"status": "ok"} if up else {"status": "down", "message": "The media server does not answer."},
                "avatars": {"status": "ok", "count": len(avatar_ids)},
            },
        }
        return web.json_response(body, status=200 if up else 503, headers={} if up else {"Retry-After": "2"})

    app.router.add_get("/health", health)
