"""Microsoft's neural voices through edge-tts: many languages, over the network, streamed as MP3."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from gpuserver.domain import Pcm, Speech
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline.clauses import bounded
from gpuserver.pipeline.language import has_words, language_name, language_of
from gpuserver.pipeline.mp3 import Mp3Decoder

if TYPE_CHECKING:
    from edge_tts.typing import TTSChunk

NAME = "edge-tts"
VOICE_NAME = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]{2,12}){1,2}-[A-Za-z]+Neural")  # the name goes into SSML unescaped

VOICES = {
    "en": "en-US-JennyNeural",
    "zh": "zh-CN-XiaoxiaoNeural",
    "ja": "ja-JP-NanamiNeural",
    "ko": "ko-KR-SunHiNeural",
    "ru": "ru-RU-SvetlanaNeural",
    "ar": "ar-EG-SalmaNeural",
    "he": "he-IL-HilaNeural",
    "el": "el-GR-AthinaNeural",
    "hi": "hi-IN-SwaraNeural",
    "th": "th-TH-PremwadeeNeural",
}

FIRST_SOUND_SECONDS = 2.5
NEXT_SOUND_SECONDS = 5.0
LONGEST = 600  # characters; one request takes 4096 bytes of XML, and edge-tts does not split Chinese
TICKS_PER_SECOND = 10_000_000  # the unit of the service's boundaries
MISSING_SECONDS = 0.25  # sound that may be missing at the end before the sentence counts as cut


class EdgeVoice:
    """Speaks every script in VOICES. One connection per sentence; nothing is kept between sentences."""

    @property
    def name(self) -> str:
        return NAME

    def can_speak(self, text: str) -> bool:
        return has_words(text) and language_of(text) in VOICES

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The first piece carries the sentence's text, the others carry none. voice: a name like zh-CN-YunxiNeural, None for the default.

        Raises VoiceFailed: VoiceUnreachable where the service does not answer or the connection is cut, also after some pieces.
        """
        if not has_words(text):
            return
        name = _voice_for(text, voice)
        for part in bounded(text, LONGEST):
            said = part
            async with aclosing(_sound(part, name, rate)) as pieces:
                async for pcm, sample_rate in pieces:
                    yield Speech(pcm, sample_rate, said, voice=name)
                    said = ""

    async def probe(self) -> None:
        """Find out whether the service speaks now. Raises VoiceFailed."""
        async with aclosing(self.speak("Hello.")) as pieces:
            async for _ in pieces:
                return

    async def aclose(self) -> None:
        """Nothing is held between sentences."""


def _voice_for(text: str, wanted: str | None) -> str:
    """The wanted voice if it knows the text's language, else that language's default. Every voice knows the Latin script."""
    language = language_of(text)
    if language not in VOICES:
        raise VoiceFailed(f"edge-tts has no voice here for {language_name(text)}: {text[:80]}")
    if wanted is None:
        return VOICES[language]
    if not VOICE_NAME.fullmatch(wanted):
        raise VoiceFailed(f"{wanted[:80]!r} is no name of an edge-tts voice.", advice="Use a name like zh-CN-YunxiNeural.")
    knows = language == "en" or wanted.startswith(f"{language}-") or "Multilingual" in wanted
    return wanted if knows else VOICES[language]


async def _sound(text: str, voice: str, rate: float) -> AsyncGenerator[tuple[Pcm, int], None]:
    """int16 mono and its rate in Hz, as it arrives."""
    import edge_tts

    decoder = Mp3Decoder()
    samples, promised = 0, 0.0  # sound received, and the end of the last sentence that the service announced, in seconds
    percent = f"{round((min(max(rate, 0.5), 2.0) - 1) * 100):+d}%"
    with _errors_translated():
        stream = edge_tts.Communicate(text, voice, rate=percent, connect_timeout=2).stream()
        async with aclosing(stream) as chunks:
            while (chunk := await _next(chunks, first=samples == 0)) is not None:
                if chunk["type"] != "audio":
                    promised = (chunk["offset"] + chunk["duration"]) / TICKS_PER_SECOND
                    continue
                pcm = decoder.decode(chunk["data"])
                if len(pcm):
                    samples += len(pcm)
                    yield pcm, decoder.sample_rate
        pcm = decoder.finish()
    samples += len(pcm)
    if len(pcm):
        yield pcm, decoder.sample_rate
    if samples == 0 or samples / decoder.sample_rate < promised - MISSING_SECONDS:
        raise VoiceUnreachable("edge-tts ended the sentence in the middle.")


async def _next(chunks: AsyncGenerator[TTSChunk, None], *, first: bool) -> TTSChunk | None:
    """The next chunk; None at the end. The client's own read time-out does not work on its websocket."""
    async with asyncio.timeout(FIRST_SOUND_SECONDS if first else NEXT_SOUND_SECONDS):
        return await anext(chunks, None)


@contextmanager
def _errors_translated() -> Iterator[None]:
    import aiohttp
    from edge_tts.exceptions import EdgeTTSException, NoAudioReceived

    try:
        yield
    except TimeoutError as error:
        raise VoiceUnreachable("edge-tts does not answer in time.") from error
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or type(error.os_error).__name__
        raise VoiceUnreachable(f"edge-tts cannot be reached: no connection to {error.host} ({reason}).") from error
    except aiohttp.ClientResponseError as error:
        raise VoiceUnreachable(f"edge-tts cannot be used: the service answers {error.status}.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise VoiceUnreachable(f"edge-tts cannot be reached: {error or type(error).__name__}.") from error
    except NoAudioReceived as error:
        raise VoiceFailed("edge-tts sent no sound; it may not know the voice or the language of the text.") from error
    except (EdgeTTSException, ValueError, KeyError, TypeError) as error:  # what the client raises for messages it cannot read
        raise VoiceUnreachable(f"edge-tts answers something unexpected: {error}.") from error
