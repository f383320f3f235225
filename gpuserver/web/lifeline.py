"""The socket between a supervised process and its supervisor, in the place of standard input.

The process says over it that it serves and that its event loop turns; the supervisor ends one that falls silent. The supervisor's death
closes it, and the process ends too: nothing is orphaned.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import threading
from contextlib import suppress

READY = b"ready\n"
ALIVE = b"."
BEAT_SECONDS = 2.0
SHUTDOWN_LIMIT_SECONDS = 5  # then SIGALRM ends the process, whatever it is stuck in


class Lifeline:
    def __init__(self) -> None:
        faulthandler.enable()  # a process that is ended because it hangs says where
        # Moved away from standard input, so that children of this process do not hold it open.
        self._socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        threading.Thread(target=self._wait_for_the_end, name="lifeline", daemon=True).start()

    def ready(self) -> None:
        """Tell the supervisor that this process serves."""
        self._socket.sendall(READY)

    def beat(self) -> None:
        """On the event loop: tell the supervisor that it turns, from now on. Who has begun is ended by the supervisor if it stops."""
        with suppress(OSError):  # a supervisor that does not read, or has gone
            self._socket.send(ALIVE, socket.MSG_DONTWAIT)
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self.beat)

    def _wait_for_the_end(self) -> None:
        # On a thread of its own: it works also while the event loop is stuck.
        with suppress(ConnectionResetError):  # a supervisor that dies before it has heard the last beat
            while self._socket.recv(64):
                pass
        signal.alarm(SHUTDOWN_LIMIT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
