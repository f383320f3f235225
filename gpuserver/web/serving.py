"""Runs one aiohttp application as a process: bind, say so, serve until a signal, shut down within a limit."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable

import structlog
from aiohttp import web

from gpuserver.config import LOOPBACK_HOSTS, Settings
from gpuserver.errors import CannotStart

KEEPALIVE_SECONDS = 15.0  # aiohttp's own default holds idle connections for an hour
DRAIN_SECONDS = 1.0  # for requests in progress
SHUTDOWN_LIMIT_SECONDS = 5  # then the kernel ends the process (SIGALRM)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger(__name__)


def check_bind(settings: Settings, name: str, host: str) -> None:
    """Refuse to be reachable from other machines without protection. `name` is the setting. Raises CannotStart."""
    if host in LOOPBACK_HOSTS or settings.allow_insecure:
        return
    keys = " API_KEYS are not supported yet in this version." if settings.api_keys else ""
    raise CannotStart(
        f"{name}={host} would let every machine that reaches this one create avatars and sessions.{keys}",
        advice=f"Set {name}=127.0.0.1 and put a proxy in front, or set ALLOW_INSECURE=1 if the network is closed to others.",
    )


def check_port(name: str, host: str, port: int) -> None:
    """Find out early whether the port is free. `name` is the setting's prefix. Raises CannotStart."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise cannot_bind(name, host, port, error) from error


def cannot_bind(name: str, host: str, port: int, error: OSError) -> CannotStart:
    """The plain sentence for a failed bind."""
    if error.errno == errno.EADDRINUSE:
        return CannotStart(f"Port {port} on {host} is in use.", advice=f"Stop what uses it, or set {name}_PORT to another port.")
    return CannotStart(f"{host}:{port} cannot be bound: {os.strerror(error.errno or 0)}.", advice=f"Correct {name}_HOST and {name}_PORT.")


async def serve(app: web.Application, name: str, host: str, port: int, *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve `app` until SIGINT, SIGTERM or SIGHUP. `name` is the settings' prefix, such as MEDIA. Raises CannotStart."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _begin_stop, stop)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=KEEPALIVE_SECONDS, shutdown_timeout=DRAIN_SECONDS
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise cannot_bind(name, host, port, error) from error
        log.info("listening", host=host, port=port)
        if on_ready is not None:
            on_ready()
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()


def _begin_stop(stop: asyncio.Event) -> None:
    signal.alarm(SHUTDOWN_LIMIT_SECONDS)
    stop.set()


class Lifeline:
    """The socket between a supervised process and its supervisor, in the place of standard input.

    The process says over it that it serves; the supervisor's death closes it, and the process ends too.
    """

    def __init__(self, fd: int = 0):
        self._socket = socket.socket(fileno=fd)
        threading.Thread(target=self._wait_for_the_end, name="lifeline", daemon=True).start()

    def ready(self) -> None:
        self._socket.sendall(b"ready\n")

    def _wait_for_the_end(self) -> None:
        # A thread of its own: it works while the event loop is stuck, and the alarm works while Python is.
        while self._socket.recv(64):
            pass
        signal.alarm(SHUTDOWN_LIMIT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
