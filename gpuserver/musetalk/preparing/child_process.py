"""Runs a child process that tells, line by line, how far it is (child_lines.py), and ends it on cancel or when it takes too long."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from gpuserver.errors import Cancelled, GpuserverError
from gpuserver.interpreter import OWN, Interpreter

WATCH_SECONDS = 0.25  # a child that says nothing is looked after this often: for cancel, and for the time limit

_END_SECONDS = 10.0  # from the last line to the end of the process
_LINE_BYTES = 1 << 20
_ERROR_TAIL = 4_000  # characters of the child's standard error that are kept
_KEPT = ("PYTHONPATH", "PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")

Line = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended. outcome: its last line that was not heard on the way; said: the end of its standard error."""

    outcome: Line
    code: int
    said: str

    def raise_told(self, errors: Mapping[str, type[GpuserverError]]) -> None:
        """Raise the error that the child has told of, if it is one of these, by their slugs."""
        problem = self.outcome.get("error")
        if isinstance(problem, dict) and problem.get("slug") in errors:
            raise errors[problem["slug"]](str(problem["detail"]), advice=str(problem["advice"]), extra=problem.get("extra"))


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    hear: Callable[[Line], bool],
    *,
    wall_seconds: float,
    stdin: IO[bytes] | None = None,
    cancel: threading.Event | None = None,
) -> Ending:
    """Wait for the child's end. hear: takes each line and says whether it was one of those on the way.

    Raises Cancelled, TimeoutError, GpuserverError where the child says nonsense. The child is gone when this returns or raises.
    """
    outcome: Line = {}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # a group of its own, so that all of it can be ended
        )
        try:
            for line in _lines(child, cancel, time.monotonic() + wall_seconds):
                if not hear(line):
                    outcome = line
            child.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            end_child(child)
        errors.seek(0)
        return Ending(outcome, child.returncode, errors.read().decode(errors="replace")[-_ERROR_TAIL:])


def _lines(child: subprocess.Popen[bytes], cancel: threading.Event | None, deadline: float) -> Iterator[Line]:
    """The child's lines until it closes its output."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(WATCH_SECONDS)
            if cancel is not None and cancel.is_set():
                raise Cancelled("The avatar's creation was cancelled.")
            if time.monotonic() > deadline:
                raise TimeoutError
            if not ready:
                continue
            chunk = os.read(child.stdout.fileno(), 65_536)
            if not chunk:
                return
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LINE_BYTES:
                raise _nonsense()
            yield from map(_parsed, complete)


def _parsed(line: bytes) -> Line:
    try:
        said = json.loads(line)
    except ValueError:
        raise _nonsense() from None
    if not isinstance(said, dict):
        raise _nonsense()
    return said


def _nonsense() -> GpuserverError:
    return GpuserverError("The preparation said something that cannot be understood.")


def child_environment(python: Interpreter = OWN, *, also: Sequence[str] = (), one_thread: bool = True) -> dict[str, str]:
    """What the child needs to find Python's files and ours, and the variables named in `also`; no settings, no secrets.

    one_thread: its libraries compute in one thread; the other cores belong to others.
    """
    kept = {name: os.environ[name] for name in (*_KEPT, *also) if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if one_thread else {}
    return {**python.environment(kept), **threads, "PYTHONUTF8": "1"}


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its group unless it has ended, and wait for it. It leads a group of its own."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
