"""Process 2: the media server. Sessions, their answers, and the pictures and sound that browsers receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import structlog
from aiohttp import web

from gpuserver.config import Settings
from gpuserver.domain import Avatar
from gpuserver.errors import SessionNotFound
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.media.audio_upload import AudioUploads
from gpuserver.media.choice_routes import add_choice_routes
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.health import add_health_route
from gpuserver.media.ice import ice_network
from gpuserver.media.livetalking import LiveTalkingParts, add_livetalking_routes
from gpuserver.media.message_limits import MessageLimits
from gpuserver.media.metrics import MediaCollector, StreamMetrics, TurnMetrics
from gpuserver.media.mouths import Mouths
from gpuserver.media.operations import DESCRIPTION, OPERATIONS, TITLE
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.preload import add_preload_route
from gpuserver.media.recorder import Recorder
from gpuserver.media.session_numbers import SessionNumbers
from gpuserver.media.session_routes import add_session_routes
from gpuserver.media.speech_service import add_speech_routes
from gpuserver.media.watched_sessions import WatchedSessions
from gpuserver.media.websocket import add_websocket_routes
from gpuserver.media.whep import add_whep_routes
from gpuserver.messages import AVATAR_DELETED
from gpuserver.musetalk.avatar_cache import AvatarCache
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.engines import Engines, make_engines
from gpuserver.musetalk.latents_on_demand import LatentsOnDemand
from gpuserver.musetalk.rendering.admission import Admission
from gpuserver.pipeline.language_model import ReportingModel, make_language_model
from gpuserver.pipeline.loading import leave_what_is_being_loaded
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.pipeline.standing import StandingNotices
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.voice import ReportingVoice, make_voice, own_voices
from gpuserver.web.auth import internal_secret
from gpuserver.web.avatar_routes import add_avatar_routes
from gpuserver.web.binding import check_bind
from gpuserver.web.body import JSON_LIMIT
from gpuserver.web.docs_routes import add_docs_routes
from gpuserver.web.logs import configure_logging
from gpuserver.web.metrics import add_metrics
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.web.rate_limit import parse_rate
from gpuserver.web.serving import serve

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """One of MEDIA_WORKERS processes. number: from 1. socket: where it listens for the router in front of all.

    renderers: the sockets of the processes that draw for all workers.
    """

    number: int
    socket: Path
    renderers: tuple[Path, ...] = ()


class SessionsAsUsers:
    """Implements web.avatar_routes.AvatarUsers: the sessions of this process show the avatars."""

    def __init__(self, registry: SessionRegistry):
        self._registry = registry

    async def showing(self, avatar_id: str) -> list[str]:
        return self._registry.showing(avatar_id)

    async def end(self, session_ids: list[str]) -> None:
        for session_id in session_ids:
            try:
                await self._registry.delete(session_id, AVATAR_DELETED)
            except SessionNotFound:
                log.info("session_ended_by_itself", session_id=session_id)


def _bare_app(settings: Settings) -> web.Application:
    """Without routes. Raises CannotStart."""
    app = web.Application(
        middlewares=middlewares(settings, host=settings.media_host, secret=internal_secret(settings)), client_max_size=JSON_LIMIT
    )
    app.on_response_prepare.append(add_security_headers)
    return app


def _make_playout(encoding: Encoding, avatar: Avatar) -> Playout:
    """Of a new session, whose browser is going to connect."""
    encoding.expect(avatar)
    return Playout(avatar)


def create_app(
    settings: Settings,
    *,
    voice: ReportingVoice | None = None,
    language_model: ReportingModel | None = None,
    engines: Engines | None = None,
    interpreter: Interpreter = OWN,
    worker: Worker | None = None,
) -> web.Application:
    """The application, with the voice, the language model and the engines that the settings name unless others are given.

    worker: which of several processes this is, None for the only one.
    Nothing is started before it runs. Raises CannotStart for settings that cannot work.
    """
    app = _bare_app(settings)
    metrics = add_metrics(app)

    manager = AvatarManager(settings)
    standing = StandingNotices()
    mouths = Mouths(engines or make_engines(settings, () if worker is None else worker.renderers), standing)
    voice = voice or make_voice(settings)
    language_model = language_model or make_language_model(settings)
    studio = Studio(language_model, voice, mouths.engines, mouths.renderer, standing, TurnMetrics(metrics).note, hearing=mouths.hearing)
    latents = LatentsOnDemand(manager, useful=lambda: mouths.engines.loading or mouths.engines.fallback is None)
    cache = AvatarCache(manager, want_latents=latents.want)
    encoding = Encoding(note=StreamMetrics(metrics).note)
    registry = SessionRegistry(settings, studio, manager, cache, partial(_make_playout, encoding), admission=Admission(mouths.renderer))
    peers = Peers(ice_network(settings, 0 if worker is None else worker.number - 1), LoopClock(), encoding)
    watched = WatchedSessions(registry, peers)
    recorder = Recorder(settings.avatars_dir.parent / "records")
    uploads = AudioUploads()

    async def run(_app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await asyncio.to_thread(manager.start)
            parts.push_async_callback(asyncio.to_thread, latents.close)
            mouths.start()
            parts.push_async_callback(mouths.aclose)
            voice.start()
            parts.push_async_callback(voice.aclose)
            language_model.start()
            parts.push_async_callback(language_model.aclose)
            parts.push_async_callback(uploads.aclose)
            parts.push_async_callback(recorder.aclose)
            parts.push_async_callback(watched.aclose)
            parts.push_async_callback(encoding.aclose)
            await parts.enter_async_context(peers)
            parts.push_async_callback(registry.aclose)
            yield

    async def say_goodbye(_app: web.Application) -> None:
        """While the sockets are still open: every client learns that its session is lost, and why."""
        await registry.aclose()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(say_goodbye)
    metrics.registry.register(MediaCollector(registry, settings.max_sessions, mouths, voice=voice, language_model=language_model))
    add_health_route(app, registry, peers, settings, voice=voice, language_model=language_model, mouths=mouths, interpreter=interpreter)
    add_choice_routes(app, voice, language_model)
    add_speech_routes(app, own_voices(voice))
    add_session_routes(app, registry, peers, settings, mouths)
    add_websocket_routes(app, registry, peers, MessageLimits(parse_rate(settings.rate_limit)))
    add_whep_routes(app, watched, registry, peers, settings)
    add_livetalking_routes(app, LiveTalkingParts(watched, SessionNumbers(registry), uploads, recorder, manager))
    add_avatar_routes(app, manager, SessionsAsUsers(registry), max_upload_mb=settings.max_upload_mb)
    add_preload_route(app, cache)
    add_docs_routes(app, OPERATIONS, title=TITLE, description=DESCRIPTION)
    return app


def main(
    settings: Settings,
    *,
    on_ready: Callable[[], None] | None = None,
    interpreter: Interpreter = OWN,
    worker: Worker | None = None,
) -> None:
    """Serve until a signal. interpreter: what was found when a Python was chosen, for /health. worker: which of several this is.

    Raises CannotStart.
    """
    configure_logging(settings)
    if worker is not None:
        structlog.contextvars.bind_contextvars(worker=worker.number)
    if interpreter.shortfall is not None:
        log.warning("own_python", message=interpreter.shortfall)
    check_bind(settings, "MEDIA", settings.media_host)
    cv2.setNumThreads(1)  # the cores belong to the sessions, not to one call
    asyncio.run(_serve(settings, on_ready, interpreter, worker))
    leave_what_is_being_loaded()


async def _serve(settings: Settings, on_ready: Callable[[], None] | None, interpreter: Interpreter, worker: Worker | None) -> None:
    asyncio.get_running_loop().set_exception_handler(log_failure)

    def ready() -> None:
        log.info("ready", seconds_of_cpu=round(time.process_time(), 2))
        if on_ready is not None:
            on_ready()

    app = create_app(settings, interpreter=interpreter, worker=worker)
    more_ports = {"TTS": settings.tts_port} if settings.tts_port else {}
    unix_socket = None if worker is None else worker.socket
    await serve(app, "MEDIA", settings.media_host, settings.media_port, more_ports=more_ports, unix_socket=unix_socket, on_ready=ready)


def log_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What failed in a task or callback that nobody awaits, also inside aiortc: said once, the server goes on."""
    error = context.get("exception")
    log.error("unhandled", message=context.get("message"), exc_info=error if isinstance(error, BaseException) else None)
