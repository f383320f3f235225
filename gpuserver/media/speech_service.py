"""POST /v1/audio/speech in OpenAI's shape, streamed while it is spoken, and GET /tts/models: the server's own voices for others.

https://platform.openai.com/docs/api-reference/audio/createSpeech
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

import structlog
from aiohttp import web
from pydantic import Field

from gpuserver.domain import Speech
from gpuserver.errors import InvalidInput, TooManyWaiting, Unspeakable, VoiceFailed
from gpuserver.media.speech_formats import SpeechFile
from gpuserver.pipeline.language import has_words
from gpuserver.pipeline.sentences import sentences, whole
from gpuserver.pipeline.streams import closing
from gpuserver.pipeline.voice import NAMES, StartedVoice
from gpuserver.web.answers import json_answer
from gpuserver.web.body import read_body
from gpuserver.web.keys import needs_key
from gpuserver.web.places import Places
from gpuserver.wire import NullIsAbsent, ShortText, Strict, Tolerant

MOST_AT_ONCE = 8  # texts that are being spoken
LONGEST = 4096  # characters, as OpenAI has it
SLOWEST_READER_SECONDS = 10.0  # for one piece; a client that takes longer has gone
# What OpenAI's clients send where they do not care who speaks.
ANY_VOICE = frozenset(
    {"", "alloy", "ash", "ballad", "cedar", "coral", "default", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse"}
)

log = structlog.get_logger(__name__)


class SpeechRequest(NullIsAbsent, Tolerant):
    """POST /v1/audio/speech. model: "tts-1" and the like, or one of GET /tts/models. voice: one of GET /v1/voices, or OpenAI's names."""

    input: Annotated[str, Field(min_length=1, max_length=LONGEST)]
    model: ShortText = "tts-1"
    voice: ShortText = "alloy"
    response_format: Literal["mp3", "wav", "pcm"] = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0


class SpeechModel(Strict):
    """A voice of this server. available: it answers now."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "gpuserver"
    available: bool = True


class SpeechModelList(Strict):
    """GET /tts/models; the preferred one first."""

    object: Literal["list"] = "list"
    data: list[SpeechModel]


def add_speech_routes(app: web.Application, voice: StartedVoice | None) -> None:
    """Serve both calls from `app`. voice: None where every voice is another machine's."""
    routes = SpeechRoutes(voice)
    app.router.add_post("/v1/audio/speech", routes.speak)
    app.router.add_get("/tts/models", routes.models)


class SpeechRoutes:
    """Speaks a few texts at once."""

    def __init__(self, voice: StartedVoice | None):
        self._voice = voice
        self._places = Places(MOST_AT_ONCE, _too_many)

    @needs_key
    async def models(self, _request: web.Request) -> web.Response:
        """GET /tts/models."""
        choices = [] if self._voice is None else self._voice.choices()
        names: dict[str, bool] = {}
        for choice in choices:
            name = choice.id if choice.id in NAMES else NAMES[1]  # every other id is a voice of edge-tts
            names[name] = names.get(name, False) or choice.available
        models = [SpeechModel(id=name, available=available) for name, available in names.items()]
        return json_answer(SpeechModelList(data=models))

    @needs_key
    async def speak(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/audio/speech. Raises InvalidInput, TooManyWaiting, Unspeakable, VoiceFailed.

        X-Voice says who speaks, X-Voice-Fallback why, where that is not the preferred voice. Where the sound breaks off, so does
        the connection.
        """
        body = await read_body(request, SpeechRequest)
        if not has_words(body.input):
            raise InvalidInput("input: has no words.")
        if self._voice is None:
            raise VoiceFailed("This server has no voice of its own; it speaks through TTS_SERVICE_URL.", advice="Ask that service.")
        with self._places.one():
            async with aclosing(_sound(self._voice, body)) as pieces:
                return await _stream(request, pieces, SpeechFile(body.response_format))


def _too_many() -> TooManyWaiting:
    return TooManyWaiting(f"{MOST_AT_ONCE} texts are being spoken.", advice="Try again in a moment.", retry_after=1)


async def _sound(voice: StartedVoice, body: SpeechRequest) -> AsyncGenerator[Speech, None]:
    """The text's sound, sentence by sentence. Raises VoiceFailed, and Unspeakable before the first sound whichever sentence it is."""
    wanted = body.voice if body.voice not in ANY_VOICE else body.model if body.model in NAMES else None
    async with closing(sentences(whole(body.input))) as stream:
        parts = [sentence async for sentence in stream]
    for number, sentence in enumerate(parts, 1):
        if has_words(sentence) and not voice.can_speak(sentence):
            raise Unspeakable(f"No voice here can say sentence {number} of the text.")
    for sentence in parts:
        async with aclosing(voice.speak(sentence, voice=wanted, rate=body.speed)) as pieces:
            async for piece in pieces:
                yield piece


async def _stream(request: web.Request, pieces: AsyncIterator[Speech], file: SpeechFile) -> web.StreamResponse:
    """The answer; its status is decided by the first piece."""
    first = await anext(pieces, None)
    if first is None:
        raise Unspeakable("The voice gave no sound for this text.")
    response = web.StreamResponse(headers={"Content-Type": file.content_type, "X-Voice": _header(first.voice)})
    if first.fallback:
        response.headers["X-Voice-Fallback"] = _header(first.fallback)
    await response.prepare(request)
    try:
        await _write(response, await asyncio.to_thread(file.add, first.pcm, first.sample_rate))
        async for piece in pieces:
            await _write(response, await asyncio.to_thread(file.add, piece.pcm, piece.sample_rate))
        await _write(response, await asyncio.to_thread(file.finish))
    except (VoiceFailed, ConnectionError, TimeoutError) as error:
        log.info("speech_broke_off", cause=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()  # the client must not take it for the whole
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    if data:
        async with asyncio.timeout(SLOWEST_READER_SECONDS):
            await response.write(data)


def _header(text: str) -> str:
    """The text as a header can carry it."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:300]
