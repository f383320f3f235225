"""The voice of last resort: eSpeak NG, robotic, in many languages, on the CPU and offline, with timed visemes."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gpuserver.domain import Speech
from gpuserver.errors import Unspeakable
from gpuserver.pipeline.espeak_model import EspeakModel
from gpuserver.pipeline.language import has_ideographs, has_words, language_name, language_of
from gpuserver.pipeline.speech_worker import SpeechWorker, SpokenPiece, clamped
from gpuserver.wire import VoiceInfo

NAME = "espeak"
INSTALL = "Install it with: pip install 'gpuserver[espeak]'"

VOICES = {
    "en": "en-us",
    "zh": "cmn",
    "ja": "ja",
    "ko": "ko",
    "ru": "ru",
    "ar": "ar",
    "he": "he",
    "el": "el",
    "hi": "hi",
    "th": "th",
}


def is_installed() -> bool:
    """Whether the optional package is there."""
    return importlib.util.find_spec("espeakng_loader") is not None


class EspeakVoice:
    """Speaks every script in VOICES; of Japanese, the kana."""

    def __init__(self) -> None:
        self._worker = SpeechWorker(NAME, EspeakModel, INSTALL)

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Begin loading the library, so that the first sentence does not wait for it."""
        self._worker.start()

    def can_speak(self, text: str) -> bool:
        language = language_of(text)
        return has_words(text) and language in VOICES and not (language == "ja" and has_ideographs(text))

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The texts of the pieces, joined, are the sentence. Raises Unspeakable where the script is unknown here."""
        if not has_words(text):
            return
        if not self.can_speak(text):
            raise Unspeakable(f"The voice espeak cannot read {language_name(text)}.")
        language = VOICES[language_of(text)]

        def work(model: EspeakModel, piece: str, pause: float) -> SpokenPiece | None:
            return model.speak(piece, language, rate=clamped(rate), pause=pause)

        async with aclosing(self._worker.speak(text, work)) as pieces:
            async for piece in pieces:
                yield piece

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=NAME, name="eSpeak NG, robotic", language="mul")]

    async def aclose(self) -> None:
        """Finish the piece being spoken, drop what waits, stop the worker."""
        await self._worker.aclose()
