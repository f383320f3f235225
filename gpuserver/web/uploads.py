"""Multipart uploads, streamed to disk: fields in any order, bounded in size and time, nothing left behind on failure."""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gpuserver.errors import DiskFull, InvalidInput, TooLarge, UnsupportedMediaType
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.web.body import Pace, refuse_content_encoding

CHUNK_BYTES = 1024 * 1024
TEXT_LIMIT = 4096  # bytes of one text field
MOST_PARTS = 32

Check = Callable[[str, str], Awaitable[None]]  # name and text of a field


@dataclass
class Form:
    """A received form: the text fields, and the one file."""

    fields: dict[str, str] = field(default_factory=dict)
    file: Path | None = None

    def take(self) -> Path:
        """The file under another name: it stays when the form's block ends, and is the caller's to remove. Raises ValueError."""
        if self.file is None:
            raise ValueError("the form has no file")
        return self.file.rename(self.file.with_name(f"taken-{self.file.name}"))


@asynccontextmanager
async def receive_form(
    request: web.Request, *, file_field: str, folder: Path, limit: int, check: Check | None = None, room: DiskRoom | None = None
) -> AsyncIterator[Form]:
    """The form of a multipart/form-data request; its file lies in `folder` until the block ends.

    limit: bytes of the file. check: sees every text field as soon as it is there; what it raises ends the reception.
    room: what the disk must keep free, seen to with every piece: others write, too, and not every client says how much will come.
    Raises InvalidInput, TooLarge, TooSlow, UnsupportedMediaType, DiskFull.
    """
    refuse_content_encoding(request)
    if request.content_type != "multipart/form-data":
        raise UnsupportedMediaType(f"The body is {request.content_type}, not multipart/form-data.")
    if request.content_length is not None and request.content_length > limit + MOST_PARTS * TEXT_LIMIT:
        raise _too_large(limit)
    path = folder / f"upload-{secrets.token_hex(8)}"
    form = Form()
    try:
        try:
            await _read_parts(request, form, file_field, path, limit, check=check, room=room)
        except (ValueError, RuntimeError, HttpProcessingError) as error:  # aiohttp's three ways of saying that it is malformed
            raise InvalidInput(
                "The multipart body is malformed or cut short.", advice="Send the form as curl -F or an HTTP library makes it."
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull("There is no room left for the upload.") from error
            raise
        yield form
    finally:
        path.unlink(missing_ok=True)


async def _read_parts(
    request: web.Request, form: Form, file_field: str, path: Path, limit: int, *, check: Check | None, room: DiskRoom | None
) -> None:
    reader = await request.multipart()
    pace = Pace()
    for _ in range(MOST_PARTS):
        part = await pace.wait(reader.next())
        if part is None:
            return
        if not isinstance(part, BodyPartReader) or not part.name:
            raise InvalidInput("Every part of the form must be a field with a name.")
        if part.name in form.fields or (part.name == file_field and form.file is not None):
            raise InvalidInput(f"{part.name[:64]}: is there twice.")
        if part.name == file_field:
            await _save(part, path, limit, pace, room)
            form.file = path
        else:
            form.fields[part.name] = await read_text(part, pace)
            if check is not None:
                await check(part.name, form.fields[part.name])
    raise InvalidInput(f"The form has more than {MOST_PARTS} parts.")


async def read_text(part: BodyPartReader, pace: Pace) -> str:
    """A text field, of at most TEXT_LIMIT bytes. Raises InvalidInput, TooSlow, and ValueError for what is no UTF-8."""
    text = bytearray()
    while chunk := await pace.wait(part.read_chunk(TEXT_LIMIT)):
        text += chunk
        pace.received += len(chunk)
        if len(text) > TEXT_LIMIT:
            raise InvalidInput(f"{(part.name or '')[:64]}: has more than {TEXT_LIMIT} bytes.")
    return text.decode()


def refuse_encoded_part(part: BodyPartReader) -> None:
    """Files come as they are. Raises UnsupportedMediaType."""
    for header in ("Content-Encoding", "Content-Transfer-Encoding"):
        if part.headers.get(header, "binary").lower() not in {"binary", "8bit", "7bit", "identity"}:
            raise UnsupportedMediaType(f"The file's {header} is not taken.", advice="Send the file as it is.")


async def _save(part: BodyPartReader, path: Path, limit: int, pace: Pace, room: DiskRoom | None) -> None:
    refuse_encoded_part(part)
    with await asyncio.to_thread(path.open, "xb") as file:
        size = 0
        while chunk := await pace.wait(part.read_chunk(CHUNK_BYTES)):
            size += len(chunk)
            pace.received += len(chunk)
            if size > limit:
                raise _too_large(limit)
            await asyncio.to_thread(_write, file, chunk, room)


def _write(file: BinaryIO, chunk: bytes, room: DiskRoom | None) -> None:
    if room is not None:
        room.require(len(chunk))
    file.write(chunk)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The upload exceeds MAX_UPLOAD_MB ({limit // 1024**2} MB).")
