"""The socket between a supervised process and its supervisor, in the place of standard input.

The process says over it that it serves; the supervisor's death closes it, and the process ends too: nothing is orphaned.
"""

from __future__ import annotations

import os
import signal
import socket
import threading

READY = b"ready\n"
SHUTDOWN_LIMIT_SECONDS = 5  # then SIGALRM ends the process, whatever it is stuck in


class Lifeline:
    def __init__(self) -> None:
        # Moved away from standard input, so that children of this process do not hold it open.
        self._socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        threading.Thread(target=self._wait_for_the_end, name="lifeline", daemon=True).start()

    def ready(self) -> None:
        """Tell the supervisor that this process serves."""
        self._socket.sendall(READY)

    def _wait_for_the_end(self) -> None:
        # On a thread of its own: it works also while the event loop is stuck.
        while self._socket.recv(64):
            pass
        signal.alarm(SHUTDOWN_LIMIT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
