"""Which route asks its callers for what: an API key, the session's own token, the secret of the other process, or nothing.

Every handler states it with one of the decorators; a handler that states nothing needs a key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpuserver.config import Settings
from gpuserver.errors import Forbidden, KeyRequired
from gpuserver.web.auth import INTERNAL_HEADER, check_keys, require_internal, same_secret
from gpuserver.web.origin import is_local

KEY_HEADER = "X-API-Key"
KEY_PARAMETER = "api_key"

CALLER = web.RequestKey("caller", str)  # who calls, a name that tells no secret: "key 1", …
INTERNAL_CALLER = "internal"
ANYBODY = "anybody"

_ACCESS = "__access__"
H = TypeVar("H", bound=Callable[..., object])


class Access(Enum):
    """What a route asks for. Where API_KEYS is empty, KEY and KEY_IN_QUERY ask for nothing, and LOCAL_OR_KEY admits this machine alone."""

    PUBLIC = auto()
    KEY = auto()  # an API key in a header
    KEY_IN_QUERY = auto()  # an API key in a header or as ?api_key=
    ENGINE_TOKEN = auto()  # the session's engine_token, which the handler itself checks
    LOCAL_OR_KEY = auto()  # an API key in a header, or a call from this machine that no proxy has passed on
    INTERNAL = auto()  # the internal secret


def _stating(access: Access) -> Callable[[H], H]:
    def mark(handler: H) -> H:
        setattr(handler, _ACCESS, access)
        return handler

    return mark


public = _stating(Access.PUBLIC)
needs_key = _stating(Access.KEY)
key_in_query = _stating(Access.KEY_IN_QUERY)  # for what browsers fetch without headers: pictures, films, event streams
takes_engine_token = _stating(Access.ENGINE_TOKEN)
local_or_key = _stating(Access.LOCAL_OR_KEY)  # for what tells of the machine: nobody else sees it, with or without API_KEYS
internal = _stating(Access.INTERNAL)


def stated_access(handler: object) -> Access | None:
    """What the handler's decorator states; None where it has none."""
    access = getattr(handler, _ACCESS, None)
    return access if isinstance(access, Access) else None


class ApiKeys:
    """The keys of API_KEYS. Raises CannotStart for one that is no good."""

    def __init__(self, settings: Settings):
        check_keys(settings)
        self._digests = [_digest(key.get_secret_value()) for key in settings.api_keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, request: web.Request, *, in_query: bool) -> int | None:
        """The number of the key that the request carries, from 1; None if it carries none of ours.

        The time it takes tells nothing: every key is compared with the digest of what was sent.
        """
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        sent = [bearer.strip() if scheme.lower() == "bearer" else "", request.headers.get(KEY_HEADER, "")]
        if in_query:
            sent.append(request.query.get(KEY_PARAMETER, ""))
        matches = [number for given in map(_digest, sent) for number, key in enumerate(self._digests, 1) if hmac.compare_digest(given, key)]
        return matches[0] if matches else None


def keys_middleware(settings: Settings, secret: str | None) -> Middleware:
    """Ask every caller for what the route states, and note under CALLER who it is.

    secret: what the other process sends as X-Internal-Secret, which opens every route; None where no process calls this one.
    """
    keys = ApiKeys(settings)

    @web.middleware
    async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[CALLER] = ANYBODY
        if request.match_info.http_exception is None:  # else there is no such address, which is no secret
            request[CALLER] = _admit(request, keys, secret)
        return await handler(request)

    return check_access


def _admit(request: web.Request, keys: ApiKeys, secret: str | None) -> str:
    """Who calls, for CALLER. Raises Forbidden, KeyRequired, Unauthorized."""
    access = stated_access(request.match_info.handler) or Access.KEY
    if secret and same_secret(request.headers.get(INTERNAL_HEADER, ""), secret):
        return INTERNAL_CALLER
    if access is Access.INTERNAL:
        require_internal(request, secret)
    if access is Access.LOCAL_OR_KEY and is_local(request):
        return ANYBODY
    if access is Access.LOCAL_OR_KEY and not keys:
        raise Forbidden("Only this machine may call this address.", advice="Set API_KEYS and send one of them to call it from elsewhere.")
    if not keys or access in {Access.PUBLIC, Access.ENGINE_TOKEN}:
        return ANYBODY
    number = keys.find(request, in_query=access is Access.KEY_IN_QUERY)
    if number is None:
        raise KeyRequired("This call needs an API key.")
    return f"key {number}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
