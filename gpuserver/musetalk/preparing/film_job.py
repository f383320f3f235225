"""The parent's side of an idle film: runs the child process that encodes it, ends it on cancel or when it takes too long."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gpuserver.errors import AvatarNotFound, Cancelled, DiskFull, GpuserverError
from gpuserver.musetalk.preparing.child_process import WATCH_SECONDS, child_environment, end_child
from gpuserver.musetalk.preparing.idle_film import NO_ROOM, part_of

WALL_SECONDS = 300.0
_ERROR_TAIL = 2_000  # characters of the child's standard error that go into the log

_log = logging.getLogger(__name__)


def make_film(folder: Path, film: Path, cancel: threading.Event | None = None, *, wall_seconds: float = WALL_SECONDS) -> None:
    """Write the film of the avatar in `folder` and wait for its end.

    Raises Cancelled, AvatarNotFound (deleted meanwhile), DiskFull, GpuserverError. The child is gone when this returns or raises.
    """
    _check(cancel)  # who waited for a long time may have gone
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-m", "gpuserver.musetalk.preparing.idle_film", str(folder), str(film)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=child_environment(),
            start_new_session=True,  # a group of its own, so that all of it can be ended
        )
        try:
            _wait(child, cancel, time.monotonic() + wall_seconds)
        finally:
            end_child(child)
            part_of(film).unlink(missing_ok=True)  # a killed child does not
        if child.returncode == 0:
            return
        if not folder.is_dir():
            raise AvatarNotFound("The avatar was deleted while its film was made.")
        if child.returncode == NO_ROOM:
            raise DiskFull("The disk has no room for the film of the idle loop.")
        errors.seek(0)
        _log.warning("no idle film, code %s: %s", child.returncode, errors.read().decode(errors="replace")[-_ERROR_TAIL:])
        raise GpuserverError("The film of the idle loop could not be made.")


def _wait(child: subprocess.Popen[bytes], cancel: threading.Event | None, deadline: float) -> None:
    """Until the child has ended. Raises Cancelled, GpuserverError (too slow)."""
    while True:
        try:
            child.wait(timeout=WATCH_SECONDS)
        except subprocess.TimeoutExpired:
            _check(cancel)
            if time.monotonic() > deadline:
                raise GpuserverError("The film of the idle loop took too long to make.") from None
        else:
            return


def _check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("The film was cancelled.")
