"""What a child process tells its parent: one JSON object per line of standard output. The parent's side is child_process.py."""

from __future__ import annotations

import json
import os
import sys
import time

from gpuserver.errors import GpuserverError

_PROGRESS_SECONDS = 0.1  # between two lines


class Lines:
    """The private end of standard output; anything else that prints goes to standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._spoken_at, self._stage = 0.0, ""

    def say(self, **line: object) -> None:
        """One line. BrokenPipeError when the parent is gone: this process then has nothing left to do."""
        self._pipe.write(json.dumps(line, ensure_ascii=True) + "\n")

    def progress(self, stage: str, part: float) -> None:
        """How far the stage is: 0..1; said ten times a second at most."""
        now = time.monotonic()
        if now - self._spoken_at >= _PROGRESS_SECONDS or stage != self._stage or part == 1:
            self._spoken_at, self._stage = now, stage
            self.say(progress=[stage, round(part, 4)])

    def fail(self, error: GpuserverError) -> None:
        """The work has failed in a known way."""
        self.say(error={"slug": error.slug, "detail": error.detail, "advice": error.advice, "extra": error.extra})
