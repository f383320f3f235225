"""Several gateways on one port, as one command: the kernel deals out the connections, what dies is started again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from gpuserver.config import Settings
from gpuserver.unified_server import STOP_SIGNALS, Child, Supervisor, package_environment
from gpuserver.web.binding import check_bind, check_port
from gpuserver.web.logs import configure_logging


def main(settings: Settings, workers: int, say: Callable[[str], None]) -> None:
    """Run `workers` gateways until a signal. `say` shows a line to whoever started us. Raises CannotStart."""
    configure_logging(settings)
    check_bind(settings, "GATEWAY", settings.gateway_host)
    check_port("GATEWAY", settings.gateway_host, settings.port)
    asyncio.run(_supervise(settings, workers, say))


async def _supervise(settings: Settings, workers: int, say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "gpuserver", "gateway", "--supervised", "--share-port"]
    environment = package_environment()
    supervisor = Supervisor([Child(f"gateway {number}", command, environment) for number in range(1, workers + 1)])
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop, number)

    async def greet() -> None:
        say(f"ready: http://{settings.gateway_host}:{settings.port}, {workers} workers")

    await supervisor.run(greet)
