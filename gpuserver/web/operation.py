"""What a call of the API is, takes and answers, as its author states it; openapi.py makes the OpenAPI document of it.

Each part of the server keeps a table of its operations, keyed like "POST /v1/avatars/{avatar_id}". What every call may be
answered (a wrong key, too many calls, …) is added from the route itself, so that the tables say only what is special.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from gpuserver.errors import GpuserverError, InvalidInput, TooLarge, TooSlow, UnsupportedMediaType

JSON = "application/json"
FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
EVENTS = "text/event-stream"
BODY_ERRORS = (InvalidInput, TooLarge, TooSlow, UnsupportedMediaType)  # what any call with a body may be answered

JsonSchema = Mapping[str, object]
Error = type[GpuserverError]

STRING: JsonSchema = {"type": "string"}
EVENT_STREAM: JsonSchema = {"description": "Server-sent events, line by line."}
FLAG: JsonSchema = {"type": "boolean"}
BINARY: JsonSchema = {"type": "string", "format": "binary"}
FILE_CONTENT = "…"  # stands for bytes in an example


@dataclass(frozen=True, slots=True)
class Parameter:
    """One in the path, the query or a header."""

    name: str
    place: str  # path, query or header
    description: str
    schema: JsonSchema = field(default_factory=lambda: STRING)
    example: object = None  # of one in the path; the others may be left out


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries, in any of `content_types`. examples: by name, in the shape of the model or schema."""

    shape: type[BaseModel] | JsonSchema
    examples: Mapping[str, object]
    content_types: tuple[str, ...] = (JSON,)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no refusal. shape: None where it has no body. headers: those that it always has, and what they say."""

    description: str
    shape: type[BaseModel] | JsonSchema | None = None
    example: object = None
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A call. parameters: those in its path only where they differ from PATH_PARAMETERS. errors: what it may be refused with
    besides what any call may be. is_open: it asks for nothing, whatever its route states.
    """

    tag: str
    summary: str
    answers: tuple[Answer, ...]
    description: str = ""
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[Error, ...] = ()
    is_open: bool = False


Operations = Mapping[str, Operation]

AVATAR_ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
FORCE = Parameter("force", "query", "true ends the sessions that show the avatar.", FLAG)
REPLACE = Parameter("replace", "query", "true swaps an avatar of this name atomically.", FLAG)
IF_NONE_MATCH = Parameter("If-None-Match", "header", "The ETag of what the client has; it is answered 304 if nothing has changed.")
RANGE = Parameter("Range", "header", "A part of the file, such as bytes=0-1023 (RFC 9110, 14.2).")

# Every parameter that stands in a path, by its name there.
PATH_PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("avatar_id", "path", "The avatar.", {"type": "string", "pattern": AVATAR_ID_PATTERN}, "demo"),
        Parameter("name", "path", "The avatar.", {"type": "string", "pattern": AVATAR_ID_PATTERN}, "demo"),
        Parameter("session_id", "path", "As POST /v1/sessions or POST /whep/{avatar_id} gave it.", STRING, "2f1c9a7be04d4c0c"),
        Parameter("job_id", "path", "As `Prefer: respond-async` gave it.", STRING, "8d0e6d1f5a4b"),
        Parameter("sessionid", "path", "As POST /offer gave it.", {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}, 2718281828),
        Parameter("path", "path", "A file of the page.", STRING, "icon.svg"),
    )
}


def no_content(description: str, status: int = 204) -> Answer:
    """An answer without a body."""
    return Answer(description, status=status)


def file_answers(content_type: str, what: str, *, ranges: bool = True) -> tuple[Answer, ...]:
    """What a file is answered with: whole, a part of it, or nothing because the client has it."""
    whole = Answer(what, BINARY, FILE_CONTENT, content_type=content_type)
    unchanged = no_content("The client has it already: If-None-Match or If-Modified-Since.", 304)
    if not ranges:
        return whole, unchanged
    part = Answer("The part that Range asks for.", BINARY, FILE_CONTENT, 206, content_type, {"Content-Range": "Which part of how much."})
    return whole, part, unchanged, Answer("Range lies outside of the file.", status=416, headers={"Content-Range": "How long it is."})
