"""The session id in a request's path."""

from __future__ import annotations

import re

from aiohttp import web

from gpuserver.errors import SessionNotFound

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def session_id_of(request: web.Request) -> str:
    """The session id of the path. Raises SessionNotFound if none can have this form: it must not leave our URL's path."""
    session_id = request.match_info["session_id"]
    if not SESSION_ID.fullmatch(session_id):
        raise SessionNotFound("There is no session with such an id.")
    return session_id
