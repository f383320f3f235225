"""What every request of either process passes through: log line, problem+json, CORS, origin, key and rate checks, security headers."""

from __future__ import annotations

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpuserver.config import Settings
from gpuserver.web.body import encoding_middleware
from gpuserver.web.cors import add_cors_headers, cors_middleware
from gpuserver.web.keys import keys_middleware
from gpuserver.web.origin import origin_middleware
from gpuserver.web.problem import BEGUN, problem_middleware
from gpuserver.web.rate_limit import STANDING, rate_limit_middleware

log = structlog.get_logger(__name__)


def middlewares(settings: Settings, *, host: str | None = None, secret: str | None = None) -> list[Middleware]:
    """For web.Application(middlewares=…), outermost first.

    host: where the server listens; MANAGEMENT_API_HOST unless given. secret: of the process that may call as X-Internal-Secret.
    Raises CannotStart for settings that cannot work.
    """
    return [
        request_log_middleware,
        problem_middleware,
        cors_middleware(settings),
        origin_middleware(settings, host or settings.management_api_host),
        keys_middleware(settings, secret),
        rate_limit_middleware(settings),
        encoding_middleware,
    ]


@web.middleware
async def request_log_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One line per request: the path without its query, which may hold a token."""
    started = time.monotonic()
    status = 499  # where the client goes away first
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as error:  # redirects and 304 pass through the problem middleware as they are
        status = error.status
        raise
    finally:
        write = log.debug if request.path == "/health" or request.path.startswith("/static/") else log.info
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        write("request", method=request.method, path=request.path[:200], status=status, ms=milliseconds)
    return response


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """An on_response_prepare signal: nothing is sniffed, caches keep no answers of the API, callers see their limits."""
    request[BEGUN] = response
    response.headers["Server"] = "gpuserver"  # instead of the versions of Python and aiohttp
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
    add_cors_headers(request, response)
    if (standing := request.get(STANDING)) is not None:
        response.headers.update(standing.headers())
