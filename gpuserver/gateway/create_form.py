"""The form of POST /api/avatar/create, passed on as that of /v1/avatars/upload while it arrives: at most one chunk is held."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gpuserver.errors import GpuserverError, InvalidAvatarId, InvalidInput, TooLarge, UnsupportedMediaType
from gpuserver.web.body import Pace, log_unknown_fields, parse_flag, refuse_content_encoding
from gpuserver.web.uploads import CHUNK_BYTES, MOST_PARTS, TEXT_LIMIT, read_text, refuse_encoded_part
from gpuserver.wire import check_avatar_id

FACE, VOICE = "prompt_face", "prompt_voice"
VOICE_LIMIT = 50 * 1024**2  # bytes
# The gateway's names of the text fields, and those of /v1/avatars/upload.
PASSED_ON = {
    "name": "avatar_id",
    "avatar_blur": "apply_blur",
    "tutor_id": "tutor_id",
    "description": "description",
    "timbre": "timbre",
    "tts_model": "tts_model",
    "avatar_model": "avatar_model",
}
FLAGS = {"avatar_blur", "support_clone"}


class CreateForm:
    """One form. fields: the text fields seen so far. failure: why body() ended early, which an HTTP client hides from its caller."""

    def __init__(self, request: web.Request, face_limit: int):
        """face_limit: bytes of the face's file. Raises UnsupportedMediaType, TooLarge."""
        refuse_content_encoding(request)
        if request.content_type != "multipart/form-data":
            raise UnsupportedMediaType(f"The body is {request.content_type}, not multipart/form-data.")
        if request.content_length is not None and request.content_length > face_limit + VOICE_LIMIT + MOST_PARTS * TEXT_LIMIT:
            raise _too_large(FACE, face_limit)
        self.fields: dict[str, str] = {}
        self.failure: GpuserverError | None = None
        self._files: set[str] = set()
        self._request = request
        self._face_limit = face_limit
        self._boundary = secrets.token_hex(16)

    @property
    def content_type(self) -> str:
        """Of body()."""
        return f"multipart/form-data; boundary={self._boundary}"

    @property
    def wants_clone(self) -> bool:
        """Whether a cloned voice was asked for, or a sample of one was sent."""
        return VOICE in self._files or parse_flag("support_clone", self.fields.get("support_clone", ""))

    async def body(self) -> AsyncIterator[bytes]:
        """The form as /v1/avatars/upload takes it."""
        try:
            async for chunk in self._translate():
                yield chunk
        except GpuserverError as error:
            self.failure = error
            raise
        except (ValueError, RuntimeError, HttpProcessingError) as error:  # aiohttp's three ways of saying that it is malformed
            self.failure = InvalidInput(
                "The multipart body is malformed or cut short.", advice="Send the form as curl -F or an HTTP library makes it."
            )
            raise self.failure from error

    async def _translate(self) -> AsyncIterator[bytes]:
        reader = await self._request.multipart()
        pace = Pace()
        for _ in range(MOST_PARTS):
            part = await pace.wait(reader.next())
            if part is None:
                self._check_whole()
                yield f"--{self._boundary}--\r\n".encode()
                return
            async for chunk in self._pass_on(part, pace):
                yield chunk
        raise InvalidInput(f"The form has more than {MOST_PARTS} parts.")

    async def _pass_on(self, part: object, pace: Pace) -> AsyncIterator[bytes]:
        if not isinstance(part, BodyPartReader) or not part.name:
            raise InvalidInput("Every part of the form must be a field with a name.")
        name = part.name
        if name in self.fields or name in self._files:
            raise InvalidInput(f"{name[:64]}: is there twice.")
        if name not in {FACE, VOICE}:
            self.fields[name] = _checked(name, await read_text(part, pace))
            if name in PASSED_ON:
                yield self._head(PASSED_ON[name]) + self.fields[name].encode() + b"\r\n"
            return
        self._files.add(name)
        if name == VOICE:
            async for _chunk in _file(part, pace, VOICE_LIMIT):
                pass  # no voice is cloned, so its sample is not kept
            return
        yield self._head("video_file", file=True)
        async for chunk in _file(part, pace, self._face_limit):
            yield chunk
        yield b"\r\n"

    def _check_whole(self) -> None:
        log_unknown_fields(self._request, set(self.fields) - set(PASSED_ON) - FLAGS)
        if "name" not in self.fields:
            raise InvalidInput("name: is missing.", advice="Send the avatar's name as the form field name.")
        if FACE not in self._files:
            raise InvalidInput(f"{FACE}: the form has no such file.", advice=f"Send a video or picture as the form field {FACE}.")

    def _head(self, name: str, *, file: bool = False) -> bytes:
        kind = '; filename="face"\r\nContent-Type: application/octet-stream' if file else ""
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'.encode()


def _checked(name: str, text: str) -> str:
    """The text as the upload takes it. Raises InvalidInput, InvalidAvatarId."""
    if name == "name":
        try:
            return check_avatar_id(text)
        except ValueError as error:
            raise InvalidAvatarId(f"name: {error}.") from error
    return str(parse_flag(name, text)).lower() if name in FLAGS else text


async def _file(part: BodyPartReader, pace: Pace, limit: int) -> AsyncIterator[bytes]:
    refuse_encoded_part(part)
    size = 0
    while chunk := await pace.wait(part.read_chunk(CHUNK_BYTES)):
        size += len(chunk)
        pace.received += len(chunk)
        if size > limit:
            raise _too_large(part.name or "", limit)
        yield bytes(chunk)


def _too_large(name: str, limit: int) -> TooLarge:
    what = "MAX_UPLOAD_MB" if name == FACE else "the limit"
    return TooLarge(f"{name}: the file exceeds {what} ({limit // 1024**2} MB).")
