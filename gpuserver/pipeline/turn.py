"""One answer: think -> split -> speak -> draw -> perform, tasks side by side with bounded channels between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass

import structlog

from gpuserver.domain import Generation, Message, Played, Voice
from gpuserver.errors import GpuserverError
from gpuserver.messages import Interrupted, ServerMessage, SpeechEnded
from gpuserver.pipeline.delivery import Delivery, Scene
from gpuserver.pipeline.report import Outcome, Report, TurnRecord, now
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.thought import Recital, Thought
from gpuserver.pipeline.utterance import cut_at_word

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What a session is to answer, or to say as it is. asked_at: the event loop's time. speaker: says it instead of the usual voice."""

    text: str
    verbatim: bool
    generation: Generation
    asked_at: float
    speaker: Voice | None = None


class Turn:
    """Answers one line. run() it as a task; interrupt() ends it early. Without a scene the answer is text only.

    messages: the conversation with the question last; not needed for a verbatim line. model, kb_id, voice, rate: as the session wants them.
    """

    def __init__(
        self,
        line: Line,
        studio: Studio,
        scene: Scene | None,
        publish: Callable[[ServerMessage], None],
        *,
        messages: Sequence[Message] = (),
        model: str | None = None,
        kb_id: str | None = None,
        voice: str | None = None,
        rate: float = 1.0,
    ):
        self.line = line
        self.played: Played | None = None  # known when the Turn is over
        self._generation = line.generation
        self._scene = scene
        self._report = Report(line.generation.number, line.asked_at, publish)
        self._thought = (
            Recital(line.text, self._report) if line.verbatim else Thought(messages, model, kb_id, studio.language_model, self._report)
        )
        self._delivery = None if scene is None else Delivery(scene, studio, line.generation, self._report, voice=voice, rate=rate)
        self._on_turn = studio.on_turn
        self._interrupted_at: float | None = None
        self._stages: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Returns when the answer has been played, or was interrupted. Every failure ends as an event, none as an exception."""
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    self._begin(group)
            except* GpuserverError as failures:
                self._break_down(failures.exceptions[0])
            except* Exception as failures:  # the session outlives a broken Turn
                log.exception("turn_failed")
                self._break_down(failures.exceptions[0])
            self.played = await self._wait_until_played()
        finally:
            if self.played is None:
                self._cancel()  # run() itself was cancelled
        self._conclude(self.played)

    def interrupt(self) -> None:
        """Silence now: cancels the generation, what is on the stage, the language model and the voice. run() returns soon after."""
        if self._interrupted_at is None and self.played is None:
            self._interrupted_at = now()
            self._cancel()

    @property
    def is_aloud(self) -> bool:
        """Whether it is spoken, not text only."""
        return self._scene is not None

    @property
    def heard_text(self) -> str:
        """The spoken text as far as it was heard."""
        return "" if self._delivery is None or self.played is None else cut_at_word(self._delivery.spoken, self.played.heard)

    @property
    def remembered(self) -> str:
        """What the conversation is to remember of the answer: if it was interrupted, as far as it was heard; "" is nothing of it.

        Of a recording nothing: what was said in it is not known.
        """
        if self.line.speaker is not None:
            return ""
        if self._delivery is None or self._interrupted_at is None:
            return self._thought.written.strip()
        filler, answer = self._thought.filler, self._delivery.spoken.removesuffix(self._thought.apology)
        heard = self.heard_text[: len(answer)]
        return "" if filler.startswith(heard) else heard.removeprefix(filler).strip()

    def _begin(self, group: asyncio.TaskGroup) -> None:
        if self._generation.cancelled:
            return
        sentences = self._thought.sentences
        delivery = [_discard(sentences)] if self._delivery is None else self._delivery.stages(sentences)
        self._stages = [group.create_task(stage) for stage in (*self._thought.stages(), *delivery)]

    async def _wait_until_played(self) -> Played:
        return Played(0, None) if self._scene is None else await self._scene.stage.drained(self._generation)

    def _cancel(self) -> None:
        self._generation.cancel()
        if self._scene is not None:
            self._scene.stage.cancel(self._generation)
        for stage in self._stages:
            stage.cancel()

    def _break_down(self, failure: Exception) -> None:
        """A failure that no stage expects: what was played stays, the rest is dropped, the client is told."""
        self._cancel()
        unknown = GpuserverError("The answer broke off because of a fault in the server.")
        self._report.error(failure if isinstance(failure, GpuserverError) else unknown)

    def _conclude(self, played: Played) -> None:
        number = self._report.number
        silent_after = self._silent_after(played)
        if "first_packet" in self._report.trace.marks:
            self._report.publish(SpeechEnded(turn=number, heard=played.heard, text=self.heard_text))
        if self._interrupted_at is not None and silent_after is not None:
            self._report.trace.mark("interrupted", self._interrupted_at)
            self._report.publish(Interrupted(turn=number, ms=silent_after))
        self._report.close()
        marks, problems = self._report.trace.marks, tuple(self._report.problems)
        late = 0 if self._delivery is None else self._delivery.mouths_late
        log.info(
            "turn_ended",
            outcome=self._outcome,
            aloud=self.is_aloud,
            ms=marks,
            silent_after=silent_after,
            problems=problems,
            late_mouths=late,
        )
        self._on_turn(TurnRecord(self._outcome, self.is_aloud, marks, silent_after, problems))

    def _silent_after(self, played: Played) -> float | None:
        """Milliseconds from the interruption to silence; None if there was none."""
        if self._interrupted_at is None:
            return None
        silent_at = max(played.last_audible_at or 0.0, self._interrupted_at)
        return round((silent_at - self._interrupted_at) * 1000, 1)

    @property
    def _outcome(self) -> Outcome:
        if self._interrupted_at is not None:
            return Outcome.INTERRUPTED
        return Outcome.FAILED if self._report.problems else Outcome.COMPLETED


async def _discard(sentences: AsyncIterable[str]) -> None:
    """Text only: nobody is there to be spoken to."""
    async for _ in sentences:
        pass
