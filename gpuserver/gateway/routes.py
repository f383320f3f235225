"""All routes of the Avatar Service, for the management API and for the gateway alone."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from gpuserver.config import Settings
from gpuserver.gateway.avatars import add_avatar_routes
from gpuserver.gateway.chat import add_chat_routes
from gpuserver.gateway.chat_model import ChatModel
from gpuserver.gateway.lipsync_service import LipSyncService
from gpuserver.gateway.proxy import add_proxy_routes


def add_gateway_routes(app: web.Application, settings: Settings, *, model: ChatModel | None = None) -> Handler:
    """Serve /api/chat… and /api/avatar… from `app`; gives the handler of /api/avatar/health. model: what answers the chat."""
    model = model or ChatModel(settings)
    service = LipSyncService(settings)
    app.cleanup_ctx.extend([model.run, service.run])
    add_chat_routes(app, settings, model)
    add_proxy_routes(app, settings, service)
    return add_avatar_routes(app, settings, service)
