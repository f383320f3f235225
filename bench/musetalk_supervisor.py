"""Runs sections of a benchmark in processes that may hang or die: what they have measured until then is kept, and the others go on."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from bench.musetalk_report import Report
from bench.table import Figure

EVENT = "@event "  # begins a line that is for the supervisor; all other lines are for the reader


@dataclass(frozen=True, slots=True)
class Planned:
    """A section. limit: seconds, after which it is ended. alone: in a process of its own."""

    name: str
    limit: float
    alone: bool = False


class Supervisor:
    """command: starts a worker, which is told the sections' names and prints events: lines of EVENT and a JSON object of one key,

    "machine" (text), "begin" (section), "row" (a Figure's fields), "remark" (text), "fail" (why), "end" (section). A worker that
    ends before its sections do is followed by another one for the rest of them, with PLAIN.
    """

    PLAIN = "--plain"

    def __init__(self, command: Sequence[str], report: Report, deadline: float, clock: Callable[[], float] = time.monotonic):
        self._command = list(command)
        self._report = report
        self._deadline = deadline
        self._clock = clock
        self._plain = False

    def run(self, plan: Sequence[Planned]) -> None:
        """Until all sections are over or time is."""
        waiting = list(plan)
        while waiting:
            if self._clock() >= self._deadline:
                for planned in waiting:
                    self._report.fail(planned.name, "left out: no time was left")
                return
            waiting = self._run_some(waiting)

    def _run_some(self, waiting: list[Planned]) -> list[Planned]:
        """Those that can share a process, in one. What is left to do."""
        together = [waiting[0]] if waiting[0].alone else [planned for planned in waiting if not planned.alone]
        names = [planned.name for planned in together]
        command = [*self._command, *([self.PLAIN] if self._plain and self.PLAIN not in self._command else []), *names]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
        try:
            over = _Watch(process, self._report, together, self._deadline, self._clock).until_the_end()
        finally:
            _end(process)
        if len(over) < len(together):
            self._plain = True
            self._report.remark(f"After {over[-1].name!r} a new process went on, without kernels of our own.")
        return [planned for planned in waiting if planned not in over]


class _Watch:
    """One process, from its first event to its last."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        report: Report,
        planned: Sequence[Planned],
        deadline: float,
        clock: Callable[[], float],
    ):
        self._process = process
        self._report = report
        self._ahead = list(planned)
        self._over: list[Planned] = []
        self._deadline = deadline
        self._clock = clock
        self._begun = clock()
        self._begins = False  # the section that is next
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # bounded by what the process prints

    def until_the_end(self) -> list[Planned]:
        """The sections that are over, whatever became of them; at least one."""
        assert self._process.stdout is not None
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        while self._ahead:
            limit = min(self._begun + self._ahead[0].limit, self._deadline)
            try:
                line = self._lines.get(timeout=max(limit - self._clock(), 0.01))
            except queue.Empty:
                self._give_up(f"given up after {self._clock() - self._begun:.0f} s")
                break
            if line is None:
                self._on_end_of_process(_outcome(self._process.wait()))
                break
            self._take(line)
        return self._over

    def _on_end_of_process(self, outcome: str) -> None:
        """It belongs to the section in work; if there is none, to the one before, unless the process could not do anything at all."""
        if self._begins:
            self._give_up(f"its process ended ({outcome})")
        while not self._report.machine and self._ahead:
            self._give_up(f"no process could be started ({outcome})")
        if not self._over:
            self._give_up(f"its process ended before it began ({outcome})")

    def _take(self, line: str) -> None:
        if not line.startswith(EVENT):
            print(line, flush=True)
            return
        ((kind, value),) = json.loads(line.removeprefix(EVENT)).items()
        self._on_event(kind, value)

    def _on_event(self, kind: str, value: Any) -> None:
        if kind == "machine":
            self._report.machine = value
            print(value, flush=True)
        elif kind == "begin":
            self._begun, self._begins = self._clock(), True
        elif kind == "row":
            figure = Figure(**value)
            self._report.add(figure)
            print(f"  {figure.what}: {figure.shown}", flush=True)
        elif kind == "remark":
            self._report.remark(value)
            print(f"  {value}", flush=True)
        elif kind == "fail":
            self._report.fail(self._ahead[0].name, value)
        elif kind == "end":
            self._finish()

    def _give_up(self, why: str) -> None:
        self._report.fail(self._ahead[0].name, why)
        self._finish()

    def _finish(self) -> None:
        planned = self._ahead.pop(0)
        self._over.append(planned)
        outcome = f"FAILED, {self._report.errors[planned.name]}" if planned.name in self._report.errors else "done"
        print(f"{planned.name}: {outcome} ({self._clock() - self._begun:.0f} s)", flush=True)
        self._begun, self._begins = self._clock(), False


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    """On a thread of its own that nobody waits for: what the process has started may keep the stream open after it."""
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """And what it has started itself."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
