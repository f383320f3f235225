"""What draws the mouths of all sessions of this process: the engines, the renderer, and what is told of them."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial

import structlog

from gpuserver.domain import Avatar
from gpuserver.musetalk.engines import Engines, LoadDevices
from gpuserver.musetalk.render_service.client import ENDED
from gpuserver.musetalk.renderer import RenderChange, Renderer
from gpuserver.musetalk.rendering.ladder import Ladder, Step
from gpuserver.pipeline.loading import load_in_background
from gpuserver.pipeline.standing import StandingNotices

log = structlog.get_logger(__name__)

OVERLOAD = {
    Step.HALF: ("mouths_half", "The server is busy: for now lips move 12.5 times a second instead of 25."),
    Step.SPARE: ("mouths_spare", "The server is busy: for now the simpler engine draws the lips."),
}
RESTORED = ("mouths_full", "The lips are drawn in full again.")
RESTORED_AFTER_LOSS = ("mouths_full", "Lips move 25 times a second, drawn by the simpler engine.")
HEARING_THREADS = 8  # as many sentences as Whisper hears at a time. Not the event loop's threads: every connection's sound is encoded there
NOT_PREPARED = "This avatar is not prepared for MuseTalk yet: the warp engine draws the lips."


class Mouths:
    """start() and aclose() within the event loop. Until a wanted engine is loaded, and where it cannot be, the warp engine draws."""

    def __init__(self, engines: Engines, standing: StandingNotices):
        self.engines = engines
        self.hearing = ThreadPoolExecutor(HEARING_THREADS, thread_name_prefix="hearing")
        self.renderer = Renderer(engines.spare, ladder=Ladder(), on_change=self._on_change)
        self._standing = standing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: dict[LoadDevices, asyncio.Future[None]] = {}
        self._closed = False
        self._unprepared: set[str] = set()  # avatar ids that the log has named; as many as there are avatars

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.renderer.start()
        if self.engines.loading:
            self._say_engine()
        for source in self.engines.sources:
            self._load(source)

    async def aclose(self) -> None:
        self._closed = True
        for loading in self._loading.values():
            loading.cancel()
        await asyncio.to_thread(self.renderer.close)
        await asyncio.to_thread(self.engines.close)
        await asyncio.to_thread(self.hearing.shutdown)

    def engine_for(self, avatar: Avatar) -> tuple[str, str | None]:
        """What draws this avatar now, and why that is not the wanted engine, if so."""
        if self.engines.name == self.engines.spare.name or avatar.frames[0].generated is not None:
            return self.engines.name, self.engines.fallback
        if avatar.avatar_id not in self._unprepared:
            self._unprepared.add(avatar.avatar_id)
            log.info("avatar_not_prepared", avatar_id=avatar.avatar_id, engine=self.engines.spare.name)
        return self.engines.spare.name, NOT_PREPARED

    def status(self) -> dict[str, object]:
        """For /health: the engine, and why it is not the wanted one."""
        stats = self.renderer.stats()
        devices = [asdict(engine) for engine in stats.engines[:-1]]
        return {
            "name": self.engines.name,
            "wanted": self.engines.wanted,
            "state": "loading" if self.engines.loading else "fallback" if self.engines.fallback else "ready",
            "fallback": self.engines.fallback,
            "devices": devices,
            "frames_per_second": self.renderer.capacity(),
            "ladder": stats.step,
        }

    def renderer_status(self) -> dict[str, object]:
        """For /health: what the renderer has counted."""
        return {"engine": self.engines.name, **asdict(self.renderer.stats())}

    # ------------------------------------------------------------ what is told

    def _load(self, source: LoadDevices) -> None:
        self._loading[source] = load_in_background(lambda: self.engines.load(source, self.renderer), "engines")
        self._loading[source].add_done_callback(partial(self._loaded, source))

    def _loaded(self, source: LoadDevices, loading: asyncio.Future[None]) -> None:
        if loading.cancelled():
            return
        del self._loading[source]
        if error := loading.exception():
            log.error("engine_failed", exc_info=error)
            self.engines.fall_back("MuseTalk cannot be loaded because of a fault in the server.")
        self._say_engine()
        if source in self.engines.lost:  # already
            self._note_loss(ENDED)

    def _note_loss(self, reason: str) -> None:
        """The spare engine draws, if nothing else is left; what comes back is waited for."""
        if self.engines.name == self.engines.wanted and not self.renderer.stats().engines[:-1]:
            self.engines.fall_back(reason)
            self._say_engine()
        for source in self.engines.lost:
            if source not in self._loading and not self._closed:
                self._load(source)

    def _on_change(self, change: RenderChange) -> None:
        """Called in the renderer's threads."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, change)

    def _tell(self, change: RenderChange) -> None:
        if change.device_lost is not None:
            log.error("device_lost", reason=change.device_lost, engine=change.engine)
            self._note_loss(change.device_lost)
        log.log(logging.WARNING if change.step in OVERLOAD else logging.INFO, "mouths", step=change.step, engine=change.engine)
        if change.step in OVERLOAD:
            self._standing.say("mouths", *OVERLOAD[change.step])
        else:
            self._standing.take_back("mouths", *(RESTORED if self.engines.name == self.engines.wanted else RESTORED_AFTER_LOSS))

    def _say_engine(self) -> None:
        if self.engines.fallback is not None:
            self._standing.say("engine", "engine_loading" if self.engines.loading else "engine_fallback", self.engines.fallback)
        else:
            self._standing.take_back("engine", "engine_ready", "MuseTalk draws the lips from now on.")
