"""The parent's side of a preparation: starts the child process, listens to it, ends it on cancel or when it takes too long."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from gpuserver.errors import AvatarRoomFull, Cancelled, DiskFull, GpuserverError, NoUsableFace, Unreadable, VideoLimitExceeded
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.musetalk.preparation import PreparationRequest
from gpuserver.wire import AvatarInfo, QualityReport

Progress = Callable[[str, float], None]  # stage, and how far the whole work is: 0..1
Analysed = Callable[[QualityReport], None]

WALL_SECONDS = 600.0
WATCH_SECONDS = 0.25  # a child that says nothing is looked after this often: for cancel, and for the time limit
_LINE_BYTES = 1 << 20
_ERROR_TAIL = 4_000  # characters of the child's standard error that go into the log

_ERRORS: dict[str, type[GpuserverError]] = {
    kind.slug: kind for kind in (Unreadable, NoUsableFace, VideoLimitExceeded, DiskFull, AvatarRoomFull)
}
_ENVIRONMENT = ("PYTHONPATH", "PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows a preparation: is told how far it is and what the video is like, and may cancel it."""

    progress: Progress | None = None
    analysed: Analysed | None = None
    cancel: threading.Event | None = None


def run_preparation(
    request: PreparationRequest,
    video: IO[bytes],
    watch: Watch | None = None,
    *,
    python: Interpreter = OWN,
    wall_seconds: float = WALL_SECONDS,
) -> AvatarInfo:
    """Fill request.folder from the open video with this Python and wait for the end.

    Raises Unreadable, VideoLimitExceeded, NoUsableFace, DiskFull, Cancelled, and GpuserverError where the child itself fails.
    The child is gone when this returns or raises.
    """
    watch = watch or Watch()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 - our own module, no shell; the request is one argument
            [python.path, "-P", "-m", "gpuserver.musetalk.preparation", request.model_dump_json()],
            stdin=video,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(python),
            start_new_session=True,  # a group of its own, so that all of it can be ended
        )
        try:
            outcome: dict[str, object] = {}
            for line in _lines(child, watch.cancel, time.monotonic() + wall_seconds):
                match line:
                    case {"progress": [str(stage), float(part) | int(part)]}:
                        if watch.progress is not None:
                            watch.progress(stage, part)
                    case {"analysed": dict(figures)}:
                        if watch.analysed is not None:
                            watch.analysed(QualityReport.model_validate(figures))
                    case _:
                        outcome = line
            child.wait(timeout=WATCH_SECONDS * 40)
        finally:
            end_child(child)
        return _result(outcome, child.returncode, errors)


def _lines(child: subprocess.Popen[bytes], cancel: threading.Event | None, deadline: float) -> Iterator[dict[str, object]]:
    """The child's lines until it closes its output. Raises Cancelled, VideoLimitExceeded (too slow)."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(WATCH_SECONDS)
            if cancel is not None and cancel.is_set():
                raise Cancelled("The avatar's creation was cancelled.")
            if time.monotonic() > deadline:
                raise VideoLimitExceeded("The video took too long to prepare.")
            if not ready:
                continue
            chunk = os.read(child.stdout.fileno(), 65_536)
            if not chunk:
                return
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LINE_BYTES:
                raise GpuserverError("The preparation said something that cannot be understood.")
            yield from (json.loads(line) for line in complete)


def _result(outcome: dict[str, object], code: int, errors: IO[bytes]) -> AvatarInfo:
    if code == 0 and "result" in outcome:
        return AvatarInfo.model_validate(outcome["result"])
    problem = outcome.get("error")
    if isinstance(problem, dict) and problem.get("slug") in _ERRORS:
        raise _ERRORS[problem["slug"]](str(problem["detail"]), advice=str(problem["advice"]), extra=problem.get("extra"))
    errors.seek(0)
    _log.warning("preparation ended with code %s: %s", code, errors.read().decode(errors="replace")[-_ERROR_TAIL:])
    if code == -signal.SIGXCPU:
        raise VideoLimitExceeded("The video took too much computing time to prepare.")
    if code < 0:
        raise Unreadable(f"The video made its decoder fail ({signal.Signals(-code).name}).")
    raise GpuserverError("The preparation of the avatar failed.")


def child_environment(python: Interpreter = OWN) -> dict[str, str]:
    """What the child needs to find Python's files and ours; no settings, no secrets."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**python.environment(kept), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its group unless it has ended, and wait for it. It leads a group of its own."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
