"""Errors as RFC 9457 problem objects: every refused request is answered with what happened and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from gpuserver.errors import GpuserverError, InvalidAvatarId, InvalidInput

CONTENT_TYPE = "application/problem+json"

ADVICE = {
    404: "Check the address; README.md lists the calls.",
    405: "Use one of the methods named in the Allow header.",
    413: "Send less.",
}

log = structlog.get_logger(__name__)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into application/problem+json. Belongs outermost, right after the request log."""
    try:
        return await handler(request)
    except GpuserverError as error:
        return problem_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _response(_problem_of(error, request), error.status, _headers_to_keep(error))
    except Exception:
        # The last resort of a server: logged with its traceback, answered without any inner detail.
        log.exception("request_failed", method=request.method, path=request.path)
        return problem_response(GpuserverError("The server made a mistake while it handled the request."))


def problem_response(error: GpuserverError) -> web.Response:
    """The answer to a request that failed with `error`."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return _response(error.problem(), error.status, headers)


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


def _problem_of(error: web.HTTPException, request: web.Request) -> dict[str, object]:
    title = HTTPStatus(error.status).phrase
    return {
        "type": f"urn:gpuserver:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": error.status,
        "detail": f"{request.method} {request.path}: {error.reason or title}.",
        "advice": ADVICE.get(error.status, "Correct the request and send it again."),
    }


def _headers_to_keep(error: web.HTTPException) -> dict[str, str]:
    return {name: value for name, value in error.headers.items() if name.lower() in {"allow", "retry-after"}}


def _response(problem: Mapping[str, object], status: int, headers: Mapping[str, str]) -> web.Response:
    return web.json_response(problem, status=status, content_type=CONTENT_TYPE, headers=headers)
