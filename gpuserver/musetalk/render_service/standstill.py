"""Ends a process whose work stands still: a device that hangs answers nobody, and nothing within the process can free it."""

from __future__ import annotations

import faulthandler
import threading
import time

_PUT_OFF_SECONDS = 1.0  # how often at most the end is put off: each time costs a thread


class Standstill:
    """Counts what is in work, from any thread.

    seconds: without anything finished for so long, the stacks of all threads are written and the process exits with 1; at most a second
    too early. None: never.
    """

    def __init__(self, seconds: float | None = None):
        self._seconds = seconds
        self._lock = threading.Lock()
        self._in_work = 0
        self._put_off_at = 0.0

    @property
    def in_work(self) -> int:
        return self._in_work

    def begun(self) -> None:
        with self._lock:
            self._in_work += 1
            if self._in_work == 1:
                self._put_off()

    def finished(self) -> None:
        with self._lock:
            self._in_work -= 1
            if self._in_work == 0:
                self._call_off()
            elif time.monotonic() - self._put_off_at >= _PUT_OFF_SECONDS:
                self._put_off()

    def _put_off(self) -> None:
        if self._seconds is not None:
            self._put_off_at = time.monotonic()
            faulthandler.dump_traceback_later(self._seconds, exit=True)

    def _call_off(self) -> None:
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()
