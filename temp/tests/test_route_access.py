"""Every route of both servers states what it asks its callers for, and what is open without a key is listed here."""

from __future__ import annotations

import pytest
from aiohttp import web
from conftest import MakeSettings

from gpuserver.web.keys import Access, stated_access

# Open to whoever finds them. A route joins these lists on purpose or not at all.
PUBLIC = {
    "/",
    "/static/{path}",
    "/health",
    "/docs",
    "/docs/problems",
    "/docs/files/{path}",
    "/openapi.json",
    "/api/chat/health",
    "/api/avatar/health",
}
FOR_ENGINE_TOKENS = {
    "/v1/sessions/{session_id}/offer",
    "/v1/sessions/{session_id}/ice",
    "/ws/{session_id}",
    "/ws/ws/{session_id}",
    "/whep/sessions/{session_id}",
}


def _management(make_settings: MakeSettings) -> web.Application:
    from gpuserver.management_api import create_app
    from gpuserver.musetalk.avatar_manager import AvatarManager

    settings = make_settings()
    return create_app(settings, AvatarManager(settings))


def _media(make_settings: MakeSettings) -> web.Application:
    from gpuserver.media.server import create_app

    return create_app(make_settings())


@pytest.mark.parametrize("make", [_management, _media])
def test_every_route_states_its_access_and_no_other_is_open(make_settings: MakeSettings, make: type) -> None:
    routes = [
        (route.method, route.resource.canonical if route.resource else "", route.handler) for route in make(make_settings).router.routes()
    ]
    assert len(routes) > 15
    assert [path for _, path, handler in routes if stated_access(handler) is None] == []
    found = {access: {path for _, path, handler in routes if stated_access(handler) is access} for access in Access}
    assert found[Access.PUBLIC] <= PUBLIC
    assert found[Access.ENGINE_TOKEN] <= FOR_ENGINE_TOKENS
    assert found[Access.LOCAL_OR_KEY] == {"/metrics"}
    assert found[Access.INTERNAL] <= {"/v1/sessions", "/v1/sessions/{session_id}"}
    assert not [path for path in found[Access.KEY] | found[Access.KEY_IN_QUERY] if path in PUBLIC | FOR_ENGINE_TOKENS]
