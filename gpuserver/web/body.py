"""Request bodies: bounded in size and time, strictly validated."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable
from typing import NoReturn, TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from gpuserver.errors import Cancelled, InvalidInput, TooLarge, TooSlow, UnsupportedMediaType
from gpuserver.web.problem import invalid_input

JSON_LIMIT = 1024 * 1024  # bytes
SDP_LIMIT = 64_000  # bytes; a browser's offer has 2 to 20 kB
GRACE_SECONDS = 10.0
SLOWEST_RATE = 16 * 1024  # bytes per second; a 500 MB upload may take nine hours, a trickle is cut off

NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")  # as an escape; unescaped, no control character is JSON
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")
log = structlog.get_logger(__name__)


async def read_body(request: web.Request, model: type[Model], *, limit: int = JSON_LIMIT) -> Model:
    """The JSON body, of at most `limit` bytes, as `model`. Unknown fields are logged where the model ignores them.

    Raises InvalidInput, TooLarge, TooSlow, UnsupportedMediaType.
    """
    if request.headers.get("Content-Type") is not None and request.content_type != "application/json":
        raise UnsupportedMediaType(f"The body is {request.content_type}, not application/json.")
    raw = await read_limited(request, limit)
    sent = parse_json(raw)
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_input(error) from error
    if isinstance(sent, dict) and model.model_config.get("extra") == "ignore":
        log_unknown_fields(request, set(sent) - set(model.model_fields))
    return body


def parse_json(raw: bytes | str) -> object:
    """JSON in which nothing is ambiguous: no name twice, no NaN, no NUL, UTF-8 (RFC 8259; RFC 7493, 2). Raises InvalidInput."""
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        parsed: object = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: also of wrong UTF-8, and of numbers with over 4300 digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise InvalidInput(f"The body is not JSON: {reason}.") from error
    if NUL.search(text):
        raise InvalidInput("A text in the body has the character U+0000.")
    return parsed


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


async def read_limited(request: web.Request, limit: int) -> bytes:
    """The raw body, at most `limit` bytes of it. Raises TooLarge, TooSlow, UnsupportedMediaType."""
    refuse_content_encoding(request)
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    pace = Pace()
    body = bytearray()
    while chunk := await pace.wait(request.content.readany()):
        body += chunk
        pace.received += len(chunk)
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body exceeds the limit of {limit} bytes.", advice="Send less.")


class Pace:
    """Holds a sender to SLOWEST_RATE on average, after a time of grace, however it spreads its bytes."""

    def __init__(self) -> None:
        self.received = 0
        self._started = asyncio.get_running_loop().time()

    async def wait(self, read: Awaitable[T]) -> T:
        """The result of `read`. Raises TooSlow if what has been received so far does not earn it the time, Cancelled if the client goes."""
        try:
            async with asyncio.timeout_at(self._started + GRACE_SECONDS + self.received / SLOWEST_RATE):
                return await read
        except TimeoutError as error:
            raise TooSlow(f"{self.received} bytes in {asyncio.get_running_loop().time() - self._started:.0f} s is too slow.") from error
        except ConnectionError as error:
            raise Cancelled("The client went away.") from error


def refuse_content_encoding(request: web.Request) -> None:
    """Compressed bodies are refused: inflating one on the event loop stalls every session. Raises UnsupportedMediaType."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:40]!r} is not taken.", advice="Send the body as it is, without compression."
        )


@web.middleware
async def encoding_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses compressed bodies on every route, whether or not its handler reads one."""
    refuse_content_encoding(request)
    return await handler(request)


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
