"""Passes one call on to a worker, both ways while it arrives. Who may call has been checked; the caller's key goes no further."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gpuserver.media_router.worker_client import WorkerAnswer, WorkerClient
from gpuserver.web.auth import engine_token_of
from gpuserver.web.body import JSON_LIMIT
from gpuserver.web.interim import while_client_stays
from gpuserver.web.keys import KEY_PARAMETER
from gpuserver.web.passing_on import RequestBody, pass_on, passing_headers

REQUEST_HEADERS = ("Accept", "Content-Type", "If-Match", "If-None-Match", "Prefer", "Range")
ANSWER_HEADERS = ("Content-Security-Policy", "Location", "X-Voice", "X-Voice-Fallback")  # besides those that pass any proxy


async def forward(request: web.Request, client: WorkerClient) -> web.StreamResponse:
    """The worker's answer. Raises WorkerGone, Unavailable, Cancelled where the client goes away, and what is wrong with the body."""
    return await while_client_stays(request, _forward(request, client))


async def _forward(request: web.Request, client: WorkerClient) -> web.StreamResponse:
    body = RequestBody(request, JSON_LIMIT, f"the limit of {JSON_LIMIT} bytes") if request.body_exists else None
    try:
        async with client.open(
            request.method,
            request.rel_url.raw_path,
            query=_query(request),
            headers=_headers(request),
            body=body.chunks() if body else None,
        ) as answer:
            return await pass_on(request, answer, also=ANSWER_HEADERS)
    finally:
        if body is not None and body.failure is not None:
            raise body.failure


def whole(answer: WorkerAnswer) -> web.Response:
    """The same answer for our own client."""
    headers = passing_headers(answer.headers, ANSWER_HEADERS)
    headers.pop("Content-Length", None)
    return web.Response(status=answer.status, headers=headers, body=answer.body)


def _headers(request: web.Request) -> Mapping[str, str]:
    headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
    if token := engine_token_of(request):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _query(request: web.Request) -> Mapping[str, str]:
    return {name: value for name, value in request.query.items() if name not in {KEY_PARAMETER, "token"}}
