"""What is told about a Turn while it runs: events to the client, marks in its trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gpuserver.domain import Trace
from gpuserver.errors import GpuserverError
from gpuserver.messages import ErrorEvent, Notice, ServerMessage, SpeechStarted, TextComplete, TextStream, TraceEvent


class Report:
    """One Turn's events, numbered, and its trace. asked_at: the event loop's time."""

    def __init__(self, number: int, asked_at: float, publish: Callable[[ServerMessage], None]):
        self.number = number
        self.trace = Trace(number, asked_at)
        self.model: str | None = None  # who thinks
        self.voice: str | None = None  # who speaks
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
