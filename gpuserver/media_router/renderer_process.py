"""A renderer process: MuseTalk on one GPU, for the workers that connect to an inherited socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import structlog

from gpuserver.config import Settings
from gpuserver.musetalk.render_service.service import Painter, RenderService
from gpuserver.musetalk.render_service.standstill import Standstill
from gpuserver.web.logs import configure_logging

STANDSTILL_SECONDS = 15.0  # as long as a process may be silent: a face takes milliseconds, and is ordered a second ahead at most

log = structlog.get_logger(__name__)


def main(settings: Settings, listening: int, *, on_ready: Callable[[], None]) -> None:
    """Serve until a signal ends the process: it has nothing to bring to an end. listening: a file descriptor."""
    configure_logging(settings)
    service = RenderService(lambda: _load(settings), _start_again, Standstill(STANDSTILL_SECONDS))
    on_ready()
    service.serve(socket.socket(fileno=listening))


def _load(settings: Settings) -> Sequence[Painter]:
    from gpuserver.musetalk.musetalk_devices import load_painters  # torch takes seconds to import

    return load_painters(settings)


def _start_again(reason: str) -> NoReturn:
    """A GPU that was lost is lost for this process; the router starts another one."""
    log.error("renderer_ends", reason=reason)
    sys.stdout.flush()
    os._exit(1)
