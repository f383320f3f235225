"""The Avatar Service alone, as a process of its own: any number of copies serve the same clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.gateway.chat_model import ChatModel
from gpuserver.gateway.operations import DESCRIPTION, OPERATIONS, TITLE
from gpuserver.gateway.routes import add_gateway_routes
from gpuserver.web.binding import check_bind
from gpuserver.web.body import JSON_LIMIT
from gpuserver.web.docs_routes import add_docs_routes
from gpuserver.web.logs import configure_logging
from gpuserver.web.metrics import add_metrics
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.web.serving import serve


def create_app(settings: Settings) -> web.Application:
    """The application. It reads and writes no files. Raises CannotStart, also when it starts, for settings that cannot work."""
    app = web.Application(middlewares=middlewares(settings, host=settings.gateway_host), client_max_size=JSON_LIMIT)
    app.on_response_prepare.append(add_security_headers)
    add_metrics(app)
    model = ChatModel(settings)

    async def warm_up(_app: web.Application) -> AsyncIterator[None]:
        await model.get()
        yield

    health = add_gateway_routes(app, settings, model=model)
    app.cleanup_ctx.append(warm_up)
    app.router.add_get("/health", health)
    add_docs_routes(app, OPERATIONS, title=TITLE, description=DESCRIPTION)
    return app


def main(settings: Settings, *, share_port: bool = False, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until a signal. share_port: other processes of this user listen there as well. Raises CannotStart."""
    configure_logging(settings)
    check_bind(settings, "GATEWAY", settings.gateway_host)
    asyncio.run(serve(create_app(settings), "GATEWAY", settings.gateway_host, settings.port, share_port=share_port, on_ready=on_ready))
