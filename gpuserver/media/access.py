"""Which session a browser's request belongs to, and whether it may use it."""

from __future__ import annotations

from aiohttp import web

from gpuserver.errors import Unauthorized
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.web.auth import engine_token_of, same_secret


def session_of(request: web.Request, registry: SessionRegistry) -> Session:
    """The session named in the path, if the request carries its engine_token. Raises SessionNotFound, Unauthorized."""
    session = registry.get(request.match_info["session_id"])
    if not same_secret(engine_token_of(request), session.engine_token):
        raise Unauthorized("The engine_token is missing or does not belong to this session.")
    return session
