"""Microsoft's neural voices through edge-tts: many languages, over the network, streamed as MP3, with visemes for some of them."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import structlog

from gpuserver.domain import Speech
from gpuserver.errors import Unspeakable, VoiceFailed, VoiceUnreachable
from gpuserver.pipeline.announced_speech import SoundPiece
from gpuserver.pipeline.clauses import bounded
from gpuserver.pipeline.edge_sentence import EdgeSentence, Pronounce
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.language import has_words, language_name, language_of
from gpuserver.pipeline.loading import load_in_background
from gpuserver.pipeline.pronunciation import Pronunciation
from gpuserver.pipeline.speech_worker import clamped
from gpuserver.wire import VoiceInfo

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

# What the page offers; the service has about 300 more, and any of them may be named.
OFFERED = (
    "zh-CN-XiaoxiaoNeural", "zh-CN-XiaoyiNeural", "zh-CN-YunxiNeural", "zh-CN-YunjianNeural", "zh-CN-YunyangNeural",
    "zh-HK-HiuMaanNeural", "zh-TW-HsiaoChenNeural",
    "en-US-JennyNeural", "en-US-AriaNeural", "en-US-GuyNeural", "en-US-EmmaMultilingualNeural", "en-US-AndrewMultilingualNeural",
    "en-GB-SoniaNeural", "en-GB-RyanNeural",
    "ja-JP-NanamiNeural", "ja-JP-KeitaNeural", "ko-KR-SunHiNeural", "ko-KR-InJoonNeural",
    "fr-FR-DeniseNeural", "fr-FR-HenriNeural", "de-DE-KatjaNeural", "de-DE-ConradNeural", "es-ES-ElviraNeural", "es-ES-AlvaroNeural",
    "it-IT-ElsaNeural", "pt-BR-FranciscaNeural", "ru-RU-SvetlanaNeural", "ar-EG-SalmaNeural", "he-IL-HilaNeural",
    "el-GR-AthinaNeural", "hi-IN-SwaraNeural", "th-TH-PremwadeeNeural",
)  # fmt: skip

LONGEST = 600  # characters; one request takes 4096 bytes of XML, and edge-tts does not split Chinese

log = structlog.get_logger(__name__)


class EdgeVoice:
    """Speaks every script in VOICES. One connection per sentence; nothing is kept between sentences.

    The service announces every word with its time; where all words can be pronounced here, Speech carries visemes. Until the
    dictionaries are loaded, and for other languages, the lips follow the sound.
    """

    def __init__(self, pronunciation: Pronunciation | None = None):
        self._pronunciation = pronunciation or Pronunciation(EnglishG2p())
        self._loading: asyncio.Task[None] | None = None
        self._pronounces = False

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Load the dictionaries in the background."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="load the pronunciation")

    async def ready(self) -> None:
        """Wait until the dictionaries are loaded, or cannot be."""
        self.start()
        if self._loading is not None:
            await asyncio.shield(self._loading)

    def can_speak(self, text: str) -> bool:
        return has_words(text) and language_of(text) in VOICES

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The first piece carries the sentence's text, the others carry none. voice: a name like zh-CN-YunxiNeural, None for the default.

        Raises VoiceFailed: VoiceUnreachable where the service does not answer or the connection is cut, also after some pieces.
        """
        if not has_words(text):
            return
        name = _voice_for(text, voice)
        pronounce = self._pronounce_for(text, name.partition("-")[0])
        for part in bounded(text, LONGEST):
            said = part
            async with aclosing(_sound(part, name, rate, pronounce)) as pieces:
                async for piece in pieces:
                    yield Speech(piece.pcm, piece.sample_rate, said, piece.visemes, voice=name)
                    said = ""

    async def probe(self) -> None:
        """Find out whether the service speaks now. Raises VoiceFailed."""
        async with aclosing(self.speak("Hello.")) as pieces:
            async for _ in pieces:
                return

    def choices(self) -> list[VoiceInfo]:
        offered = [(name, *name.rsplit("-", 1)) for name in OFFERED]
        return [VoiceInfo(id=name, name=who.removesuffix("Neural"), language=language) for name, language, who in offered]

    async def aclose(self) -> None:
        """Wait no longer for the dictionaries; nothing else is held between sentences."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])

    def _pronounce_for(self, text: str, language: str) -> Pronounce | None:
        """How a text in this language is pronounced; None where that is not known for all of it."""
        if not self._pronounces or not self._pronunciation.knows(text, language):
            return None
        return lambda word, seconds: self._pronunciation.word(word, language, seconds)

    async def _load(self) -> None:
        try:
            await load_in_background(self._pronunciation.load, "load the pronunciation")
        except Exception:  # the voice speaks without them
            log.warning("no dictionaries for the lips, they follow the sound", exc_info=True)
        else:
            self._pronounces = True


def _voice_for(text: str, wanted: str | None) -> str:
    """The wanted voice if it knows the text's language, else that language's default. Every voice knows the Latin script."""
    language = language_of(text)
    if language not in VOICES:
        raise Unspeakable(f"edge-tts has no voice here for {language_name(text)}.")
    if wanted is None:
        return VOICES[language]
    if not VOICE_NAME.fullmatch(wanted):
        raise VoiceFailed(f"{wanted[:80]!r} is no name of an edge-tts voice.", advice="Use a name like zh-CN-YunxiNeural.")
    knows = language == "en" or wanted.startswith(f"{language}-") or "Multilingual" in wanted
    return wanted if knows else VOICES[language]


async def _sound(text: str, voice: str, rate: float, pronounce: Pronounce | None) -> AsyncGenerator[SoundPiece, None]:
    """One request's sound, as it arrives. Raises VoiceFailed."""
    with _errors_translated():
        async with aclosing(EdgeSentence(_xml_text(text), voice, clamped(rate), pronounce).sound()) as pieces:
            async for piece in pieces:
                yield piece


def _xml_text(text: str) -> str:
    """The text without characters that XML cannot hold, https://www.w3.org/TR/xml/#charsets; the client escapes the rest."""
    return "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter) not in {"Cc", "Cs", "Cn"})


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
