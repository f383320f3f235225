"""Process 1: the management API. It never loads torch, cv2, av or aiortc; what needs them runs elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from gpuserver.api.choices import add_choice_routes
from gpuserver.api.health import add_health_route
from gpuserver.api.media_client import MediaClient
from gpuserver.api.operations import DESCRIPTION, OPERATIONS, TITLE
from gpuserver.api.sessions import add_session_routes
from gpuserver.config import Settings
from gpuserver.gateway.operations import GATEWAY_OPERATIONS
from gpuserver.gateway.routes import add_gateway_routes
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.web.avatar_routes import add_avatar_routes
from gpuserver.web.binding import check_bind
from gpuserver.web.body import JSON_LIMIT
from gpuserver.web.docs_routes import add_docs_routes
from gpuserver.web.logs import configure_logging
from gpuserver.web.metrics import add_metrics
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.web.relay import add_relay_routes
from gpuserver.web.serving import serve
from gpuserver.web.static_routes import add_static_routes


def create_app(settings: Settings, manager: AvatarManager) -> web.Application:
    """The application. Nothing is started before it runs, the manager neither."""
    app = web.Application(middlewares=middlewares(settings), client_max_size=JSON_LIMIT)
    app.on_response_prepare.append(add_security_headers)
    add_metrics(app)
    media = MediaClient(settings)

    async def run_manager(_app: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(manager.start)
        yield

    app.cleanup_ctx.extend([run_manager, media.run])
    add_health_route(app, media, manager, settings)
    add_avatar_routes(app, manager, media, max_upload_mb=settings.max_upload_mb)
    add_session_routes(app, media, settings)
    add_choice_routes(app, media)
    add_relay_routes(app, media.websocket, lost="The media server restarts.")
    add_gateway_routes(app, settings)
    add_static_routes(app, settings)
    add_docs_routes(app, {**OPERATIONS, **GATEWAY_OPERATIONS}, title=TITLE, description=DESCRIPTION)
    return app


def main(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until a signal. Raises CannotStart."""
    configure_logging(settings)
    host, port = settings.management_api_host, settings.management_api_port
    check_bind(settings, "MANAGEMENT_API", host)
    asyncio.run(serve(create_app(settings, AvatarManager(settings)), "MANAGEMENT_API", host, port, on_ready=on_ready))
