"""Errors as RFC 9457 problem objects: every refused request is answered with what happened and what to do about it."""

from __future__ import annotations

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from gpuserver.errors import (
    Cancelled,
    ExpectationFailed,
    GpuserverError,
    InvalidAvatarId,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
    UpgradeRequired,
)
from gpuserver.web.interim import has_left

CONTENT_TYPE = "application/problem+json"

# What aiohttp itself refuses. Its other refusals are InvalidInput below 500, GpuserverError above.
KINDS: dict[int, type[GpuserverError]] = {
    kind.status: kind for kind in (NotFound, MethodNotAllowed, TooSlow, TooLarge, UnsupportedMediaType, ExpectationFailed, UpgradeRequired)
}

PROBLEM = web.ResponseKey("problem", str)  # the slug of the answer's problem type, for the metrics
BEGUN = web.RequestKey("begun", web.StreamResponse)  # the answer whose headers are on their way; noted as they are sent

log = structlog.get_logger(__name__)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into application/problem+json. Belongs outermost, right after the request log."""
    try:
        return await handler(request)
    except GpuserverError as error:
        return _instead(request, problem_response(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _instead(request, problem_of(error, request))
    except Exception as error:
        if isinstance(error, ConnectionError) and has_left(request):  # as aiohttp says so in the middle of an answer
            return _instead(request, problem_response(Cancelled("The client went away.")))
        # The last resort of a server: logged with its traceback, answered without any inner detail.
        log.exception("request_failed", method=request.method, path=request.path)
        return _instead(request, problem_response(GpuserverError("The server made a mistake while it handled the request.")))


def _instead(request: web.Request, problem: web.Response) -> web.StreamResponse:
    """The problem, unless another answer has begun: that one breaks off, because a second one would be read as the rest of its body."""
    begun: web.StreamResponse | None = request.get(BEGUN)
    if begun is None:
        return problem
    log.info("answer_broke_off", method=request.method, path=request.path[:200], problem=problem[PROBLEM])
    begun[PROBLEM] = problem[PROBLEM]
    if request.transport is not None:
        request.transport.abort()
    return begun


def problem_response(error: GpuserverError) -> web.Response:
    """The answer to a request that failed with `error`."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    response = web.json_response(error.problem(), status=error.status, content_type=CONTENT_TYPE, headers=headers)
    response[PROBLEM] = error.slug
    return response


def problem_of(error: web.HTTPException, request: web.BaseRequest) -> web.Response:
    """The answer to a request that aiohttp itself refuses."""
    kind = KINDS.get(error.status) or (InvalidInput if error.status < 500 else GpuserverError)
    response = problem_response(kind(f"{request.method} {request.path[:200]}: {error.reason or kind.title}."))
    response.headers.update({name: value for name, value in error.headers.items() if name.lower() in {"allow", "retry-after"}})
    return response


def invalid_input(error: ValidationError) -> InvalidInput:
    """What is wrong with a body, field by field, without repeating its values."""
    lines = []
    fields = set()
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in item["loc"])
        fields.add(field)
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}" if field else message)
    kind = InvalidAvatarId if fields == {"avatar_id"} and "missing" not in {item["type"] for item in error.errors()} else InvalidInput
    return kind("; ".join(lines), extra={"errors": lines})
