"""A voice behind any server that speaks OpenAI's POST /v1/audio/speech, streamed as WAV or PCM.

https://platform.openai.com/docs/api-reference/audio/createSpeech
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from gpuserver.domain import Pcm, Speech
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline.clauses import bounded
from gpuserver.pipeline.language import has_words
from gpuserver.pipeline.speech_worker import clamped
from gpuserver.pipeline.wav import WavDecoder
from gpuserver.wire import VoiceInfo

if TYPE_CHECKING:
    import aiohttp

NAME = "http"
MODEL = "tts-1"  # the names that every such server knows
VOICE = "alloy"

CONNECT_SECONDS = 2.0
FIRST_SOUND_SECONDS = 2.5
NEXT_SOUND_SECONDS = 5.0
LONGEST = 2000  # characters; the API takes 4096
MOST_SECONDS = 600.0  # of sound for one request; what sends more does not stop
PIECE = 4096  # bytes: 85 ms at 24 kHz
NO_SOUND = ("text/", "application/json", "application/xml", "application/problem+json")  # content types of messages, not of sound


class HttpVoice:
    """Speaks whatever the server behind base_url speaks. One connection per sentence; nothing is kept between sentences.

    key: what the server wants as a Bearer token.
    """

    def __init__(self, base_url: str, key: str | None = None):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Nothing has to be loaded."""

    def can_speak(self, text: str) -> bool:
        return has_words(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The first piece carries the sentence's text, the others carry none. voice: a name that the server knows.

        Raises VoiceFailed where the server refuses the sentence, VoiceUnreachable where it does not answer or breaks off.
        """
        if not has_words(text):
            return
        for part in bounded(text, LONGEST):
            said = part
            body = {"model": MODEL, "input": part, "voice": voice or VOICE, "response_format": "wav", "speed": clamped(rate)}
            async with aclosing(self._sound(body)) as pieces:
                async for pcm, sample_rate in pieces:
                    yield Speech(pcm, sample_rate, said, voice=voice or NAME)
                    said = ""

    async def probe(self) -> None:
        """Find out whether the service speaks now. Raises VoiceFailed."""
        async with aclosing(self.speak("Hello.")) as pieces:
            async for _ in pieces:
                return

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=NAME, name="Speech service", language="mul")]

    async def aclose(self) -> None:
        """Nothing is held between sentences."""

    async def _sound(self, body: dict[str, object]) -> AsyncGenerator[tuple[Pcm, int], None]:
        """int16 mono and its rate in Hz, as it arrives."""
        import aiohttp

        decoder = WavDecoder()
        samples = 0
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        with self._errors_translated():
            async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as client:
                async with asyncio.timeout(FIRST_SOUND_SECONDS):
                    response = await client.post(f"{self.base_url}/v1/audio/speech", json=body)
                async with response:
                    await self._check(response)
                    while data := await _next(response, first=samples == 0):
                        pcm = decoder.decode(data)
                        if len(pcm):
                            samples += len(pcm)
                            yield pcm, decoder.sample_rate
                        if samples > MOST_SECONDS * max(decoder.sample_rate, 1):
                            raise ValueError("the sound does not end")
            decoder.finish()
        if samples == 0:
            raise VoiceFailed(f"The speech service at {self.base_url} sent no sound.")

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises VoiceFailed for an answer that is no sound. A request that is refused as such says nothing about the others."""
        if response.status != 200:
            message = f"The speech service at {self.base_url} answers {response.status}: {await _reason(response)}"
            raise VoiceFailed(message) if response.status in {400, 404, 413, 422} else VoiceUnreachable(message)
        if response.content_type.startswith(NO_SOUND):
            raise VoiceUnreachable(f"What answers at {self.base_url} sends {response.content_type} and no sound.")

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        import aiohttp

        place = f"The speech service at {self.base_url}"
        try:
            yield
        except TimeoutError as error:  # also aiohttp's own
            raise VoiceUnreachable(f"{place} does not answer in time.") from error
        except aiohttp.ClientConnectorError as error:
            raise VoiceUnreachable(f"{place} cannot be reached ({error.os_error.strerror or type(error.os_error).__name__}).") from error
        except aiohttp.InvalidURL as error:
            raise VoiceFailed("TTS_SERVICE_URL is no web address.") from error
        except aiohttp.ClientPayloadError as error:
            raise VoiceUnreachable(f"{place} ended the sentence in the middle.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceUnreachable(f"{place} cannot be used: {error or type(error).__name__}.") from error
        except ValueError as error:
            raise VoiceUnreachable(f"{place} answers something unexpected: {error}.") from error


async def _next(response: aiohttp.ClientResponse, *, first: bool) -> bytes:
    """The next bytes; none at the end."""
    async with asyncio.timeout(FIRST_SOUND_SECONDS if first else NEXT_SOUND_SECONDS):
        return await response.content.read(PIECE)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """What the server says about its refusal, in one short line."""
    async with asyncio.timeout(NEXT_SOUND_SECONDS):
        body = await response.content.read(PIECE)
    return " ".join(body.decode(errors="replace").split())[:200] or str(response.reason)
