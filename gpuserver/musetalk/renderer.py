"""Draws the most urgent mouths of all sessions, on all engines there are.

`Dispatch` decides what is drawn next and by whom and knows no thread; a `Worker` is the thread of one engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from gpuserver.domain import FaceCrop, LipSyncEngine, MouthJob
from gpuserver.errors import DeviceLost
from gpuserver.musetalk.rendering.dispatch import Desk, Dispatch, settle
from gpuserver.musetalk.rendering.ladder import Ladder, Step
from gpuserver.musetalk.rendering.render_stats import EngineStats, RendererStats
from gpuserver.musetalk.rendering.render_worker import Worker, make_worker
from gpuserver.musetalk.rendering.schedule import Pending, cancel


@dataclass(frozen=True, slots=True)
class RenderChange:
    """Mouths are drawn in another way from now on. device_lost: what happened, if a device is gone."""

    step: Step
    engine: str  # that draws now
    device_lost: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """An engine on a device of its own. speed: frames per second as its warm-up measured them."""

    engine: LipSyncEngine
    speed: float | None = None


class Renderer:
    """Draws for all sessions with `engine`, and with better ones on devices as soon as it has them.

    `engine` is the spare one then: it draws what does not suit devices, everything while they are overloaded, and everything once
    they are lost. ladder: None where nobody waits, for films. on_change is called from the renderer's threads.
    """

    def __init__(
        self,
        engine: LipSyncEngine,
        *,
        ladder: Ladder | None = None,
        on_change: Callable[[RenderChange], None] = lambda change: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._dispatch = Dispatch(ladder)
        self._lock = threading.Lock()
        self._changed = {desk: threading.Condition(self._lock) for desk in Desk}
        self._spare = make_worker(engine, self, clock)
        self._devices: list[Worker] = []
        self._lost: list[Worker] = []
        self._on_change = on_change
        self._clock = clock
        self._closed = False

    # ------------------------------------------------------------ for everyone

    def start(self) -> None:
        self._spare.start()

    def add_devices(self, devices: Sequence[Device], suits: Callable[[MouthJob], bool]) -> None:
        """From now on they draw the jobs that `suits` them, all from one schedule. Nothing happens once the renderer is closed."""
        workers = [make_worker(device.engine, self, self._clock, device.speed) for device in devices]
        with self._lock:
            if self._closed:
                return
            self._devices += workers
            self._lost = [worker for worker in self._lost if worker.runs]
            self._dispatch.add_devices(len(workers), suits)
        for worker in workers:
            worker.start()

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come. The future is cancelled if the job's generation is, or if the renderer is closed first."""
        with self._lock:
            desk, future = self._dispatch.submit(job)
            if self._closed:
                self._dispatch.cancel_all()
            self._changed[desk].notify()
        return future

    def stats(self) -> RendererStats:
        with self._lock:
            return self._dispatch.stats(tuple(_stats_of(worker) for worker in (*self._devices, self._spare)))

    def capacity(self) -> float | None:
        """Mouths per second at full quality: of all devices together, or of the spare engine; None before they were measured."""
        with self._lock:
            speeds = [worker.frames_per_second for worker in self._devices or [self._spare]]
        return None if None in speeds else sum(speed for speed in speeds if speed is not None)

    def shown(self) -> int:
        """Mouths that were drawn or lent since the start."""
        with self._lock:
            return self._dispatch.shown

    def close(self) -> None:
        """Finish the batches in work, cancel what waits, end the threads."""
        with self._lock:
            self._closed = True
            self._dispatch.cancel_all()
            self._notify_all()
            workers = [self._spare, *self._devices, *self._lost]
        for worker in workers:
            worker.join()

    # ------------------------------------------------------------ for the workers

    def next_batch(self, worker: Worker) -> list[Pending]:
        desk = Desk.SPARE if worker is self._spare else Desk.DEVICE
        with self._lock:
            while not self._closed and worker not in self._lost:
                if batch := self._dispatch.take(desk, worker.engine.max_batch, self._clock()):
                    return batch
                self._changed[desk].wait(self._dispatch.seconds_to_next(desk, self._clock()))
            return []

    def hand_in(self, worker: Worker, batch: list[Pending], crops: Sequence[FaceCrop | None]) -> None:
        with self._lock:
            changes = self._dispatch.hand_in(batch, crops, self._clock(), is_batch=worker.makes_batches)
            if changes:
                self._notify_all()
        settle(batch, crops, worker.engine.name)
        if changes:
            self._announce()

    def drop(self, batch: list[Pending]) -> None:
        """They were not drawn, for nobody wants them any more."""
        for pending in batch:
            cancel(pending)

    def fail(self, batch: list[Pending], error: BaseException) -> None:
        with self._lock:
            self._dispatch.note_failure(batch)
        for pending in batch:
            pending.future.set_exception(error)

    def lose(self, worker: Worker, batch: list[Pending], error: DeviceLost) -> None:
        """The device is taken out and its batch drawn by those that are left, at last by the spare engine."""
        if worker is self._spare:
            self.fail(batch, error)
            return
        with self._lock:
            is_news = worker in self._devices
            if is_news:
                self._devices.remove(worker)
                self._lost.append(worker)
                self._dispatch.lose_device()
            self._dispatch.put_back(batch)
            if self._closed:
                self._dispatch.cancel_all()
            self._notify_all()
        if is_news and not self._closed:
            self._announce(error.detail)

    # ------------------------------------------------------------ inside

    def _notify_all(self) -> None:
        for changed in self._changed.values():
            changed.notify_all()

    def _announce(self, device_lost: str | None = None) -> None:
        with self._lock:
            draws = self._devices[0] if self._dispatch.best_desk is Desk.DEVICE else self._spare
            change = RenderChange(self._dispatch.step, draws.engine.name, device_lost)
        self._on_change(change)


def _stats_of(worker: Worker) -> EngineStats:
    return EngineStats(worker.engine.name, worker.frames_per_second, int(getattr(worker.engine, "out_of_memory", 0)))
