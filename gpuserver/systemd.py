"""Tells systemd how this process is, over the socket of Type=notify: it serves, it stops, its event loop still turns (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

READY = b"READY=1"
STOPPING = b"STOPPING=1"
ALIVE = b"WATCHDOG=1"


class ServiceManager:
    """Whoever started this process, as far as it wants to know; nobody outside of systemd. Belongs to one event loop."""

    def __init__(self, environment: Mapping[str, str] = os.environ):
        """environment: of the process; NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are systemd's, not settings."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._beat_seconds = _watchdog_seconds(environment) / 2  # as sd_watchdog_enabled(3) advises
        self._beat: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """This process serves. From now on, where systemd wants it, the event loop says in time that it still turns."""
        self._tell(READY)
        if self._beat_seconds:
            self._say_alive()

    def stopping(self) -> None:
        """This process ends."""
        if self._beat is not None:
            self._beat.cancel()
        self._tell(STOPPING)

    def _say_alive(self) -> None:
        self._tell(ALIVE)
        self._beat = asyncio.get_running_loop().call_later(self._beat_seconds, self._say_alive)

    def _tell(self, state: bytes) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address  # the abstract namespace
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            channel.sendto(state, address)  # who does not listen misses it; serving comes first


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How often systemd wants a sign of life from this very process; 0.0 where it wants none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() else 0.0
