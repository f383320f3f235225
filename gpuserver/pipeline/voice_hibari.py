"""The voice that is always there: hibari, neural English, on the CPU and offline, with timed visemes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gpuserver.domain import Speech
from gpuserver.errors import Unspeakable
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.hibari_model import HibariModel
from gpuserver.pipeline.language import has_words, is_latin
from gpuserver.pipeline.speech_worker import SpeechWorker, SpokenPiece, clamped
from gpuserver.wire import VoiceInfo

NAME = "hibari"

# What a lesson writes in the middle of English, and English says.
SYMBOLS = {
    "×": " times ", "÷": " divided by ", "−": " minus ", "±": " plus or minus ", "≈": " is about ", "≠": " is not equal to ",
    "≤": " is at most ", "≥": " is at least ", "√": " the square root of ", "∞": " infinity ", "→": " to ", "°": " degrees ",
    "²": " squared ", "³": " cubed ", "½": " one half ", "¼": " one quarter ", "¾": " three quarters ",
    "α": " alpha ", "β": " beta ", "γ": " gamma ", "δ": " delta ", "Δ": " delta ", "ε": " epsilon ", "θ": " theta ", "λ": " lambda ",
    "μ": " mu ", "π": " pi ", "ρ": " rho ", "σ": " sigma ", "Σ": " sum ", "τ": " tau ", "φ": " phi ", "ω": " omega ", "Ω": " ohm ",
}  # fmt: skip
_SPELL = str.maketrans(SYMBOLS)


class HibariVoice:
    """Speaks the Latin script. One worker thread, shared by all sessions; a long sentence comes clause by clause."""

    def __init__(self, g2p: EnglishG2p | None = None):
        self._worker = SpeechWorker(NAME, lambda: HibariModel(g2p), "Install it again with: pip install hibari-tts")

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Begin loading the model, so that the first sentence does not wait for it."""
        self._worker.start()

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises VoiceFailed if it cannot be."""
        await self._worker.model()

    def can_speak(self, text: str) -> bool:
        return is_latin(text.translate(_SPELL))

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The texts of the pieces, joined, are the sentence. Raises Unspeakable where the text is not in Latin script."""
        if has_words(text) and not self.can_speak(text):
            raise Unspeakable("The voice hibari speaks English only and cannot say this.")

        def work(model: HibariModel, piece: str, pause: float) -> SpokenPiece | None:
            return model.speak(piece.translate(_SPELL), rate=clamped(rate), pause=pause)

        async with aclosing(self._worker.speak(text, work)) as pieces:
            async for piece in pieces:
                yield piece

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=NAME, name="Hibari", language="en")]

    async def aclose(self) -> None:
        """Finish the piece being spoken, drop what waits, stop the worker."""
        await self._worker.aclose()
