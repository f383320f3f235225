"""The media server as several workers behind one address. No pictures, no sound: what the router loads is small, so it stays up."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import structlog
from aiohttp import web

from gpuserver.config import Settings
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.gpus import VISIBLE, environments, visible_gpus
from gpuserver.media_router.health import add_health_route
from gpuserver.media_router.livetalking_routes import add_livetalking_routes
from gpuserver.media_router.metrics import with_workers
from gpuserver.media_router.placement import Placement
from gpuserver.media_router.renderers import RendererProcess, Renderers, listen
from gpuserver.media_router.service_routes import add_service_routes
from gpuserver.media_router.session_routes import add_session_routes
from gpuserver.media_router.worker_client import WorkerClient
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.unified_server import Child, package_environment
from gpuserver.web.auth import internal_secret
from gpuserver.web.avatar_routes import add_avatar_routes
from gpuserver.web.binding import check_bind, check_port
from gpuserver.web.body import JSON_LIMIT
from gpuserver.web.logs import configure_logging
from gpuserver.web.metrics import add_metrics
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.web.relay import add_relay_routes
from gpuserver.web.serving import serve

LOST = "The media worker of this session has ended."
PYTHON = (sys.executable, "-m", "gpuserver")
SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # these are between systemd and the router

log = structlog.get_logger(__name__)


def create_app(settings: Settings, fleet: Fleet, renderers: Renderers, *, interpreter: Interpreter = OWN) -> web.Application:
    """The application. Workers and renderers run while it does. Raises CannotStart, also when it starts."""
    app = web.Application(
        middlewares=middlewares(settings, host=settings.media_host, secret=internal_secret(settings)), client_max_size=JSON_LIMIT
    )
    app.on_response_prepare.append(add_security_headers)
    add_metrics(app, gather=with_workers(fleet, renderers))
    manager = AvatarManager(settings)
    placement = Placement(fleet, settings.max_sessions)

    async def run_manager(_app: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(manager.start)
        yield

    app.cleanup_ctx.extend([run_manager, renderers.run, fleet.run])
    app.on_shutdown.append(fleet.stop)  # first: what the workers say to their clients passes through here
    add_health_route(app, fleet, renderers, settings.max_sessions, interpreter)
    add_session_routes(app, fleet, placement, settings)
    add_relay_routes(app, lambda session_id, token: fleet.of_session(session_id).client.websocket(session_id, token), lost=LOST)
    add_livetalking_routes(app, fleet, placement)
    add_service_routes(app, fleet)
    add_avatar_routes(app, manager, placement, max_upload_mb=settings.max_upload_mb)
    return app


def main(settings: Settings, *, on_ready: Callable[[], None] | None = None, interpreter: Interpreter = OWN) -> None:
    """Serve until a signal. interpreter: what was found when a Python was chosen, for /health. Raises CannotStart."""
    configure_logging(settings)
    if interpreter.shortfall is not None:
        log.warning("own_python", message=interpreter.shortfall)
    check_bind(settings, "MEDIA", settings.media_host)
    check_port("MEDIA", settings.media_host, settings.media_port)
    with tempfile.TemporaryDirectory(prefix="gpuserver-media-") as folder:  # mode 700: the sockets are for this user alone
        asyncio.run(_serve(settings, Path(folder), on_ready, interpreter))


async def _serve(settings: Settings, folder: Path, on_ready: Callable[[], None] | None, interpreter: Interpreter) -> None:
    renderers = make_renderers(settings, folder)
    fleet = make_fleet(settings, folder, [each.path for each in renderers.processes])
    app = create_app(settings, fleet, renderers, interpreter=interpreter)
    more_ports = {"TTS": settings.tts_port} if settings.tts_port else {}
    await serve(app, "MEDIA", settings.media_host, settings.media_port, more_ports=more_ports, on_ready=on_ready)


def make_renderers(settings: Settings, folder: Path) -> Renderers:
    """One per GPU, where MuseTalk is wanted; not started yet. Their sockets are in `folder`."""
    if not settings.enable_musetalk:
        return Renderers()
    gpus = visible_gpus(os.environ)

    def make(number: int, environment: Mapping[str, str]) -> RendererProcess:
        path = folder / f"renderer-{number}.sock"
        listening = listen(path)
        command = [*PYTHON, "renderer", "--listening", str(listening.fileno())]
        process = Child(f"renderer {number}", command, {**_environment(settings), **environment}, descriptors=[listening.fileno()])
        return RendererProcess(number, environment.get(VISIBLE, ""), path, listening, process)

    return Renderers([make(number, environment) for number, environment in enumerate(environments(gpus), 1)])


def make_fleet(settings: Settings, folder: Path, renderers: Sequence[Path]) -> Fleet:
    """MEDIA_WORKERS media servers, not started yet, that will listen on sockets in `folder`. renderers: the sockets of those who draw."""
    ours = _environment(settings)

    def make(number: int) -> Worker:
        socket = folder / f"{number}.sock"
        command = [*PYTHON, "media", "--supervised", "--chosen-python", "--worker", str(number), "--socket", str(socket)]
        for renderer in renderers:
            command += ["--renderer", str(renderer)]
        return Worker(number, Child(f"media worker {number}", command, ours), WorkerClient(socket, ours["INTERNAL_SECRET"]))

    return Fleet([make(number) for number in range(1, settings.media_workers + 1)])


def _environment(settings: Settings) -> dict[str, str]:
    """Of all processes below this one."""
    ours = {name: value for name, value in package_environment().items() if name not in SYSTEMD}
    return ours | {"INTERNAL_SECRET": internal_secret(settings)}
