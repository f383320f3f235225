"""Small forms without files: the name of an avatar, as curl -d, curl -F and every HTTP library send it."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gpuserver.errors import InvalidInput, UnsupportedMediaType
from gpuserver.web.body import Pace, read_limited, refuse_content_encoding
from gpuserver.web.uploads import read_text

FORM_LIMIT = 16 * 1024  # bytes
MOST_FIELDS = 8


async def read_text_form(request: web.Request) -> dict[str, str]:
    """The fields of an urlencoded or multipart body; those of the query where there is no body.

    Raises InvalidInput, TooLarge, TooSlow, UnsupportedMediaType.
    """
    try:
        if not request.body_exists:
            return dict(request.query)
        if request.content_type == "application/x-www-form-urlencoded":
            body = await read_limited(request, FORM_LIMIT)
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
        if request.content_type == "multipart/form-data":
            return await _read_parts(request)
    except (ValueError, RuntimeError, HttpProcessingError) as error:  # also how aiohttp says that a body is malformed
        raise InvalidInput("The form is malformed or cut short.", advice="Send it as curl -d or an HTTP library makes it.") from error
    raise UnsupportedMediaType(
        f"The body is {request.content_type}, not a form.", advice="Send application/x-www-form-urlencoded or multipart/form-data."
    )


async def _read_parts(request: web.Request) -> dict[str, str]:
    refuse_content_encoding(request)
    reader = await request.multipart()
    pace = Pace()
    fields: dict[str, str] = {}
    for _ in range(MOST_FIELDS):
        part = await pace.wait(reader.next())
        if part is None:
            return fields
        if not isinstance(part, BodyPartReader) or not part.name:
            raise InvalidInput("Every part of the form must be a field with a name.")
        fields[part.name] = await read_text(part, pace)
    raise InvalidInput(f"The form has more than {MOST_FIELDS} fields.")
