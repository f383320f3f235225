"""Request bodies: bounded in size and time, strictly validated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from gpuserver.errors import InvalidInput, TooLarge, TooSlow, UnsupportedMediaType
from gpuserver.web.problem import invalid_input

JSON_LIMIT = 2 * 1024 * 1024  # bytes
GRACE_SECONDS = 10.0
SLOWEST_RATE = 16 * 1024  # bytes per second; a 500 MB upload may take nine hours, a trickle is cut off

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")
log = structlog.get_logger(__name__)


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The JSON body as `model`. Unknown fields are logged where the model ignores them.

    Raises InvalidInput, TooLarge, TooSlow, UnsupportedMediaType.
    """
    if request.headers.get("Content-Type") is not None and request.content_type != "application/json":
        raise UnsupportedMediaType(f"The body is {request.content_type}, not application/json.")
    raw = await read_limited(request, JSON_LIMIT)
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_input(error) from error
    if model.model_config.get("extra") == "ignore":
        log_unknown_fields(request, set(from_json(raw)) - set(model.model_fields))
    return body


async def read_limited(request: web.Request, limit: int) -> bytes:
    """The raw body, at most `limit` bytes of it. Raises TooLarge, TooSlow, UnsupportedMediaType."""
    refuse_content_encoding(request)
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"The body has {request.content_length} bytes; the limit is {limit}.")
    pace = Pace()
    body = bytearray()
    while chunk := await pace.wait(request.content.readany()):
        body += chunk
        pace.received += len(chunk)
        if len(body) > limit:
            raise TooLarge(f"The body has more than {limit} bytes.")
    return bytes(body)


class Pace:
    """Holds a sender to SLOWEST_RATE on average, after a time of grace, however it spreads its bytes."""

    def __init__(self) -> None:
        self.received = 0
        self._started = asyncio.get_running_loop().time()

    async def wait(self, read: Awaitable[T]) -> T:
        """The result of `read`; TooSlow if what has been received so far does not earn it the time."""
        try:
            async with asyncio.timeout_at(self._started + GRACE_SECONDS + self.received / SLOWEST_RATE):
                return await read
        except TimeoutError as error:
            raise TooSlow(f"{self.received} bytes in {asyncio.get_running_loop().time() - self._started:.0f} s is too slow.") from error


def refuse_content_encoding(request: web.Request) -> None:
    """Compressed bodies are refused: inflating one on the event loop stalls every session. Raises UnsupportedMediaType."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:40]!r} is not taken.", advice="Send the body as it is, without compression."
        )


def query_flag(request: web.Request, name: str) -> bool:
    """A yes-or-no query parameter; absent is no. Raises InvalidInput."""
    return parse_flag(name, request.query.get(name, "false"))


def parse_flag(name: str, text: str) -> bool:
    """A yes-or-no from text, as forms and queries send it. Raises InvalidInput."""
    match text.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off" | "":
            return False
    raise InvalidInput(f"{name}: must be true or false.")


def log_unknown_fields(request: web.Request, fields: set[str]) -> None:
    """Say in the log which fields had no effect. Their names only, cut short: they come from outside."""
    if fields:
        log.info("unknown_fields_ignored", path=request.path, fields=[name[:64] for name in sorted(fields)[:20]])
