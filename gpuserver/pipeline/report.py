"""What is told about a Turn while it runs: events to the client, marks in its trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpuserver.domain import Trace
from gpuserver.errors import GpuserverError
from gpuserver.messages import ErrorEvent, Notice, ServerMessage, SpeechStarted, TextComplete, TextStream, TraceEvent


class Outcome(StrEnum):
    """How a Turn ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"  # something of the answer is missing; what there was of it was said


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A Turn that is over, without a word of what was said.

    aloud: spoken, not text only. marks: stage -> milliseconds since it was asked, as domain.Trace. silent_after: milliseconds from the
    interruption to the last audible sample. problems: the slugs of all errors on the way.
    """

    outcome: Outcome
    aloud: bool
    marks: Mapping[str, float]
    silent_after: float | None
    problems: tuple[str, ...]


class Report:
    """One Turn's events, numbered, and its trace. asked_at: the event loop's time."""

    def __init__(self, number: int, asked_at: float, publish: Callable[[ServerMessage], None]):
        self.number = number
        self.trace = Trace(number, asked_at)
        self.model: str | None = None  # who thinks
        self.voice: str | None = None  # who speaks
        self.problems: list[str] = []  # slugs of what went wrong
        self.publish = publish

    def mark(self, stage: str) -> None:
        """The stage is reached now."""
        self.trace.mark(stage, now())

    def text(self, delta: str) -> None:
        self.publish(TextStream(turn=self.number, delta=delta))

    def text_complete(self, text: str) -> None:
        self.publish(TextComplete(turn=self.number, text=text))

    def notice(self, code: str, text: str | None) -> None:
        """Something the student should know; None is nothing."""
        if text:
            self.publish(Notice(turn=self.number, code=code, text=text))

    def error(self, error: GpuserverError) -> None:
        self.problems.append(error.slug)
        self.publish(ErrorEvent(turn=self.number, error=error.problem()))

    def speech_started(self, at: float) -> None:
        """The first sample has left at `at`, on the event loop's clock."""
        if self.trace.mark("first_packet", at):
            self.publish(SpeechStarted(turn=self.number, at_ms=self.trace.marks["first_packet"]))

    def close(self) -> None:
        """The Turn is over: the trace goes out."""
        self.mark("done")
        self.publish(TraceEvent(turn=self.number, marks=self.trace.marks, model=self.model, voice=self.voice))


def now() -> float:
    """The event loop's time; with the stock loop it is time.monotonic."""
    return asyncio.get_running_loop().time()
