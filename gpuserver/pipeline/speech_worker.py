"""A speech model in a thread of its own: sentences go in from the event loop, sound comes back piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpuserver.domain import Pcm, Speech, TimedViseme
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline.clauses import clauses
from gpuserver.pipeline.loading import load_in_background

SHORT = 40  # characters; about 2.5 s of speech, 25 ms of hibari's work
LONG = 160  # characters spoken in one go after the first piece
CLAUSE_PAUSE, SENTENCE_PAUSE = 0.12, 0.35  # seconds of silence after a piece
SLOWEST, FASTEST = 0.5, 2.0

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True, eq=False)
class SpokenPiece:
    """What a model made of a piece of text. pcm: int16 mono at sample_rate (Hz). visemes cover it exactly."""

    pcm: Pcm
    sample_rate: int
    visemes: tuple[TimedViseme, ...]


class SpeechWorker(Generic[Model]):
    """A model and the thread that runs it, shared by all sessions; a long sentence comes clause by clause.

    name: of the voice, for Speech and messages. advice: what to do where the model cannot be loaded.
    """

    def __init__(self, name: str, load: Callable[[], Model], advice: str):
        self._name = name
        self._load = load
        self._advice = advice
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._loading: asyncio.Future[Model] | None = None

    def start(self) -> None:
        """Begin loading the model, so that the first sentence does not wait for it."""
        if self._loading is None:
            self._loading = load_in_background(self._load, f"load {self._name}")

    async def model(self) -> Model:
        """The model, loaded. Raises VoiceFailed if it cannot be."""
        self.start()
        assert self._loading is not None  # noqa: S101 - start() sets it
        await asyncio.wait([self._loading])
        if self._loading.cancelled():
            raise VoiceFailed(f"The voice {self._name} is being closed.")
        if error := self._loading.exception():
            raise VoiceFailed(f"The voice {self._name} could not be loaded: {error}", advice=self._advice) from error
        return self._loading.result()

    async def speak(self, text: str, work: Callable[[Model, str, float], SpokenPiece | None]) -> AsyncGenerator[Speech, None]:
        """The texts of the pieces, joined, are the sentence. work(model, piece, pause) makes a piece in the thread, followed by
        `pause` seconds of silence; None where there is nothing to say. Raises VoiceFailed."""
        model = await self.model()
        pieces = clauses(text, first=SHORT, longest=LONG)
        for number, piece in enumerate(pieces, 1):
            pause = SENTENCE_PAUSE if number == len(pieces) else CLAUSE_PAUSE
            try:
                spoken = await asyncio.get_running_loop().run_in_executor(self._thread, work, model, piece, pause)
            except Exception as error:
                raise VoiceFailed(f"The voice {self._name} failed on: {piece[:80]}") from error
            if spoken is not None:
                yield Speech(spoken.pcm, spoken.sample_rate, piece, spoken.visemes, voice=self._name)

    async def aclose(self) -> None:
        """Finish the piece being spoken, drop what waits, stop the thread. A model that is still being loaded is not waited for."""
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)


def clamped(rate: float) -> float:
    """The rate of speech as far as every voice can go."""
    return min(max(rate, SLOWEST), FASTEST)
