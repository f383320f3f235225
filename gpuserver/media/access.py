"""Which session a browser's request belongs to, and whether it may use it; how a router names a new one."""

from __future__ import annotations

from aiohttp import web

from gpuserver.errors import Unauthorized
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.session_names import NAME_HEADER, worker_of_id
from gpuserver.web.auth import engine_token_of, same_secret
from gpuserver.web.keys import CALLER, INTERNAL_CALLER


def session_of(request: web.Request, registry: SessionRegistry) -> Session:
    """The session named in the path, if the request carries its engine_token. Raises SessionNotFound, Unauthorized."""
    session = registry.get(request.match_info["session_id"])
    if not same_secret(engine_token_of(request), session.engine_token):
        raise Unauthorized("The engine_token is missing or does not belong to this session.")
    return session


def given_id(request: web.Request) -> str | None:
    """The id that the router in front of this worker gives a new session; None where there is none."""
    session_id = request.headers.get(NAME_HEADER, "")
    return session_id if request[CALLER] == INTERNAL_CALLER and worker_of_id(session_id) is not None else None
