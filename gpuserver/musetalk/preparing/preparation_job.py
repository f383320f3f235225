"""The parent's side of a preparation: starts the child process, passes on what it tells, and says what its end means."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from gpuserver.errors import AvatarRoomFull, DiskFull, GpuserverError, NoUsableFace, Unreadable, VideoLimitExceeded
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.musetalk.preparing.child_process import Ending, Line, child_environment, run_child
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.wire import AvatarInfo, QualityReport

Progress = Callable[[str, float], None]  # stage, and how far the whole work is: 0..1
Analysed = Callable[[QualityReport], None]

WALL_SECONDS = 600.0

_ERRORS: dict[str, type[GpuserverError]] = {
    kind.slug: kind for kind in (Unreadable, NoUsableFace, VideoLimitExceeded, DiskFull, AvatarRoomFull)
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows a preparation: is told how far it is and what the video is like, and may cancel it."""

    progress: Progress | None = None
    analysed: Analysed | None = None
    cancel: threading.Event | None = None

    def hear(self, line: Line) -> bool:
        """Pass on a line of the child; False if it is none of those on the way."""
        match line:
            case {"progress": [str(stage), float(part) | int(part)]}:
                if self.progress is not None:
                    self.progress(stage, part)
            case {"analysed": dict(figures)}:
                if self.analysed is not None:
                    self.analysed(QualityReport.model_validate(figures))
            case _:
                return False
        return True

    def step(self, start: float, share: float) -> Watch:
        """For a step of a larger work: its progress 0..1 is `share` of the whole, from `start` on."""
        told = self.progress
        return Watch(None if told is None else lambda stage, part: told(stage, start + share * part), self.analysed, self.cancel)


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
    command = [python.path, "-P", "-m", "gpuserver.musetalk.preparing.preparation", request.model_dump_json()]
    environment = child_environment(python)
    try:
        ending = run_child(command, environment, watch.hear, wall_seconds=wall_seconds, stdin=video, cancel=watch.cancel)
    except TimeoutError:
        raise VideoLimitExceeded("The video took too long to prepare.") from None
    return _result(ending)


def _result(ending: Ending) -> AvatarInfo:
    if ending.code == 0 and "result" in ending.outcome:
        return AvatarInfo.model_validate(ending.outcome["result"])
    ending.raise_told(_ERRORS)
    _log.warning("preparation ended with code %s: %s", ending.code, ending.said)
    if ending.code == -signal.SIGXCPU:
        raise VideoLimitExceeded("The video took too much computing time to prepare.")
    if ending.code < 0:
        raise Unreadable(f"The video made its decoder fail ({signal.Signals(-ending.code).name}).")
    raise GpuserverError("The preparation of the avatar failed.")
