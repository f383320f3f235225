"""The form of POST /humanaudio: kept on disk until its fields are known, which may come after the sound."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from gpuserver.errors import InvalidInput, TooLarge, TooManyWaiting
from gpuserver.player_wire import MOST_AUDIO_BYTES, SessionNumber
from gpuserver.web.places import Places
from gpuserver.web.problem import invalid_input
from gpuserver.web.uploads import receive_form

MOST_AT_ONCE = 8  # half a gigabyte of disk

SESSION_NUMBER: TypeAdapter[int] = TypeAdapter(SessionNumber)


@dataclass(frozen=True, slots=True)
class SoundForm:
    """A sound file, and whose avatar is to say it."""

    sessionid: int
    file: Path


class SoundForms:
    """Receives a few at once."""

    def __init__(self) -> None:
        self._places = Places(MOST_AT_ONCE, _too_many)

    @asynccontextmanager
    async def receive(self, request: web.Request) -> AsyncIterator[SoundForm]:
        """The form of this request; its file is there until the block ends.

        Raises TooManyWaiting, and as receive_form() does.
        """
        try:
            with self._places.one(), tempfile.TemporaryDirectory(prefix="gpuserver-audio-") as folder:
                async with receive_form(request, file_field="file", folder=Path(folder), limit=MOST_AUDIO_BYTES) as form:
                    if form.file is None:
                        raise InvalidInput("file: is missing.")
                    yield SoundForm(session_number(form.fields.get("sessionid", "")), form.file)
        except TooLarge as error:
            raise TooLarge(f"The sound has more than {MOST_AUDIO_BYTES // 1024**2} MB.", advice="Compress it or cut it.") from error


def session_number(text: str) -> int:
    """LiveTalking's number of a session. Raises InvalidInput."""
    try:
        return SESSION_NUMBER.validate_python(text)
    except ValidationError as error:
        raise invalid_input(error) from error


def _too_many() -> TooManyWaiting:
    return TooManyWaiting(f"{MOST_AT_ONCE} sounds are being received.", advice="Send it again when others are over.", retry_after=1)
