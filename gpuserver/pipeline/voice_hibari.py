"""The voice that is always there: hibari, neural English, on the CPU and offline, with timed visemes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from gpuserver.domain import Speech
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline.clauses import clauses
from gpuserver.pipeline.hibari_model import SAMPLE_RATE, HibariModel, Utterance
from gpuserver.pipeline.language import has_words, is_latin

NAME = "hibari"
SHORT = 40  # characters; about 2.5 s of speech, 25 ms of work
LONG = 160  # characters spoken in one go after the first piece
CLAUSE_PAUSE, SENTENCE_PAUSE = 0.12, 0.35  # seconds of silence after a piece
SLOWEST, FASTEST = 0.5, 2.0  # what the model was trained for

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

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hibari")
        self._loading: asyncio.Future[HibariModel] | None = None

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Begin loading the model in the worker, so that the first sentence does not wait for it."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(self._worker, HibariModel)

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises VoiceFailed if it cannot be."""
        await self._model()

    def can_speak(self, text: str) -> bool:
        return is_latin(text.translate(_SPELL))

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """The texts of the pieces, joined, are the sentence. Raises VoiceFailed where the text is not in Latin script."""
        if has_words(text) and not self.can_speak(text):
            raise VoiceFailed(f"The voice hibari speaks English only and cannot say: {text[:80]}")
        model = await self._model()
        pieces = clauses(text, first=SHORT, longest=LONG)
        for number, piece in enumerate(pieces, 1):
            pause = SENTENCE_PAUSE if number == len(pieces) else CLAUSE_PAUSE
            utterance = await self._synthesise(model, piece, min(max(rate, SLOWEST), FASTEST), pause)
            if utterance is not None:
                yield Speech(utterance.pcm, SAMPLE_RATE, piece, utterance.visemes, voice=NAME)

    def status(self) -> dict[str, object]:
        return {"voice": NAME}

    async def aclose(self) -> None:
        """Finish the piece being spoken, drop what waits, stop the worker."""
        await asyncio.to_thread(self._worker.shutdown, wait=True, cancel_futures=True)

    async def _model(self) -> HibariModel:
        self.start()
        assert self._loading is not None  # noqa: S101 - start() sets it
        try:
            return await asyncio.shield(self._loading)
        except Exception as error:
            advice = "Install it again with: pip install hibari-tts"
            raise VoiceFailed(f"The voice hibari could not be loaded: {error}", advice=advice) from error

    async def _synthesise(self, model: HibariModel, text: str, rate: float, pause: float) -> Utterance | None:
        def work() -> Utterance | None:
            return model.speak(text.translate(_SPELL), rate=rate, pause=pause)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except Exception as error:
            raise VoiceFailed(f"The voice hibari failed on: {text[:80]}") from error
