"""CORS_ORIGINS: which web sites' pages may read our answers.

A middleware of our own and not aiohttp-cors, which answers for the routes that it was given one by one: an unknown address
or a refusal outside of them would reach the page as a network error without a reason.
"""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpuserver.config import Settings
from gpuserver.errors import CannotStart

ANY = "*"
ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
METHODS = "GET, HEAD, POST, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, Content-Type, If-Match, Prefer, Range, X-API-Key"
ANSWER_HEADERS = "Content-Range, ETag, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate"
PREFLIGHT = "Access-Control-Request-Method"  # the header that tells a preflight from a plain OPTIONS
REMEMBERED_SECONDS = 600  # that a browser keeps the answer to a preflight; Chromium takes up to 7200

ALLOWED_ORIGIN = web.RequestKey("allowed origin", str)


def is_listed(origin: str, settings: Settings) -> bool:
    """Whether CORS_ORIGINS names the origin, letter by letter, or "*"."""
    return origin in settings.cors_origins or ANY in settings.cors_origins


def check_origins(settings: Settings) -> None:
    """Raises CannotStart for what is no origin, and for "*" where nothing else protects the server."""
    for origin in settings.cors_origins:
        if origin != ANY and not ORIGIN.fullmatch(origin):
            raise CannotStart(
                f"CORS_ORIGINS: {origin[:80]!r} is not an origin.", advice="Write it like https://school.example.org, without a path."
            )
    if ANY in settings.cors_origins and not settings.api_keys and not settings.allow_insecure:
        raise CannotStart(
            "CORS_ORIGINS=* without API_KEYS would let every web page that anybody here opens use this server.",
            advice="Name the sites, or set API_KEYS.",
        )


def cors_middleware(settings: Settings) -> Middleware:
    """Answer preflights, and note whose page may read the answer. Belongs before everything that may refuse a call.

    No Access-Control-Allow-Credentials is ever sent: keys and tokens travel in headers, never in cookies. Raises CannotStart.
    """
    check_origins(settings)

    @web.middleware
    async def share(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and is_listed(origin, settings):
            request[ALLOWED_ORIGIN] = ANY if ANY in settings.cors_origins else origin
        # A plain OPTIONS is for the route where one takes every method, as a proxy does.
        if request.method == "OPTIONS" and (PREFLIGHT in request.headers or request.match_info.http_exception is not None):
            return _options(request)
        return await handler(request)

    return share


def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For every answer, refusals included, where a listed page has asked."""
    allowed = request.get(ALLOWED_ORIGIN)
    if allowed is not None:
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = ANSWER_HEADERS
        response.headers.add("Vary", "Origin")


def _options(request: web.Request) -> web.Response:
    """A preflight is answered for every address, so that the page sees what the call itself is answered."""
    error = request.match_info.http_exception
    if error is not None and PREFLIGHT not in request.headers:
        if not isinstance(error, web.HTTPMethodNotAllowed):
            raise error
        return web.Response(status=204, headers={"Allow": ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))})
    if ALLOWED_ORIGIN not in request:
        return web.Response(status=204)  # without the headers that the browser looks for, it makes no call
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": str(REMEMBERED_SECONDS),
        },
    )
