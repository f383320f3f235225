"""What a route's access policy means in OpenAPI: its security requirements, and what every call may be refused with."""

from __future__ import annotations

import openapi_pydantic as oas

from gpuserver.errors import (
    ExpectationFailed,
    Forbidden,
    ForeignOrigin,
    GpuserverError,
    InvalidInput,
    KeyRequired,
    RateLimited,
    TooManyConnections,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
)
from gpuserver.web.auth import INTERNAL_HEADER
from gpuserver.web.keys import KEY_HEADER, KEY_PARAMETER, Access
from gpuserver.web.operation import Error

BEARER_KEY, HEADER_KEY, QUERY_KEY = "BearerKey", "ApiKey", "ApiKeyInQuery"
ENGINE_TOKEN, QUERY_TOKEN, INTERNAL_SECRET = "EngineToken", "EngineTokenInQuery", "InternalSecret"

_KEY = "One of the server's API_KEYS; a server without any asks for none."
_TOKEN = "The engine_token of the session."  # noqa: S105 - a sentence

SECURITY_SCHEMES = {
    BEARER_KEY: oas.SecurityScheme(type="http", scheme="bearer", description=_KEY),
    HEADER_KEY: oas.SecurityScheme.model_validate({"type": "apiKey", "in": "header", "name": KEY_HEADER, "description": _KEY}),
    QUERY_KEY: oas.SecurityScheme.model_validate({"type": "apiKey", "in": "query", "name": KEY_PARAMETER, "description": _KEY}),
    ENGINE_TOKEN: oas.SecurityScheme(type="http", scheme="bearer", description=_TOKEN),
    QUERY_TOKEN: oas.SecurityScheme.model_validate({"type": "apiKey", "in": "query", "name": "token", "description": _TOKEN}),
    INTERNAL_SECRET: oas.SecurityScheme.model_validate(
        {"type": "apiKey", "in": "header", "name": INTERNAL_HEADER, "description": "What the two processes of this machine share."}
    ),
}

SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.KEY: [{BEARER_KEY: []}, {HEADER_KEY: []}],
    Access.KEY_IN_QUERY: [{BEARER_KEY: []}, {HEADER_KEY: []}, {QUERY_KEY: []}],
    Access.LOCAL_OR_KEY: [{}, {BEARER_KEY: []}, {HEADER_KEY: []}],
    Access.ENGINE_TOKEN: [{ENGINE_TOKEN: []}, {QUERY_TOKEN: []}],
    Access.INTERNAL: [{INTERNAL_SECRET: []}],
}

# The Host header, a foreign page, a compressed body, bytes that trickle in; an overloaded server; a mistake of ours.
_ANY_CALL: tuple[Error, ...] = (
    InvalidInput,
    ForeignOrigin,
    TooSlow,
    UnsupportedMediaType,
    ExpectationFailed,
    TooManyConnections,
    GpuserverError,
)
_MORE: dict[Access, tuple[Error, ...]] = {
    Access.PUBLIC: (),
    Access.KEY: (KeyRequired, RateLimited),
    Access.KEY_IN_QUERY: (KeyRequired, RateLimited),
    Access.LOCAL_OR_KEY: (KeyRequired, Forbidden, RateLimited),
    Access.ENGINE_TOKEN: (Unauthorized, RateLimited),
    Access.INTERNAL: (Unauthorized, RateLimited),
}


def errors_of_access(access: Access) -> tuple[Error, ...]:
    """What any call of a route with this policy may be refused with."""
    return (*_ANY_CALL, *_MORE[access])
