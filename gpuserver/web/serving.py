"""Runs one aiohttp application as a process: bind, say so, serve until a signal, shut down within a limit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from aiohttp import web

from gpuserver.systemd import ServiceManager
from gpuserver.web.binding import cannot_bind
from gpuserver.web.connection import connection_factory
from gpuserver.web.lifeline import SHUTDOWN_LIMIT_SECONDS

DRAIN_SECONDS = 0.5  # for requests in progress; the supervisor grants 2.5 s to both servers together
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger(__name__)


async def serve(
    app: web.Application,
    name: str,
    host: str,
    port: int,
    *,
    more_ports: Mapping[str, int] | None = None,
    share_port: bool = False,
    unix_socket: Path | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve `app` until SIGINT, SIGTERM or SIGHUP. `name` is the settings' prefix, such as MEDIA. Raises CannotStart.

    more_ports: where it listens besides, by their settings' prefixes. share_port: other processes of this user listen there too, and the
    kernel deals out the connections (SO_REUSEPORT). unix_socket: where it listens instead of all these.
    systemd, where it started this process, learns when it serves and when it stops.
    """
    stop = asyncio.Event()
    service_manager = ServiceManager()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _begin_stop, stop)
    runner = web.AppRunner(app, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    listeners: list[asyncio.Server] = []
    try:
        if unix_socket is not None:
            listeners.append(await loop.create_unix_server(connection_factory(runner), unix_socket))
        else:
            for each, its_port in {name: port, **(more_ports or {})}.items():
                try:
                    listeners.append(await loop.create_server(connection_factory(runner), host, its_port, reuse_port=share_port or None))
                except OSError as error:
                    raise cannot_bind(each, host, its_port, error) from error
                log.info("listening", host=host, port=its_port)
        if on_ready is not None:
            on_ready()
        service_manager.ready()
        await stop.wait()
        log.info("stopping")
    finally:
        service_manager.stopping()
        for listener in listeners:
            listener.close()
        await runner.cleanup()


def _begin_stop(stop: asyncio.Event) -> None:
    signal.alarm(SHUTDOWN_LIMIT_SECONDS)
    stop.set()
