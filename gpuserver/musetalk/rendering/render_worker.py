"""One engine at work: takes batches, draws them, hands in the crops; on a thread of its own, or two for an engine on a device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from gpuserver.domain import Drawing, FaceCrop, LipSyncEngine, PipelinedEngine, QueueingEngine
from gpuserver.errors import DeviceLost
from gpuserver.musetalk.rendering.render_stats import Speed
from gpuserver.musetalk.rendering.schedule import Pending

DEPTH = 2  # batches on a device: while one is being finished the next one is drawn


class Counter(Protocol):
    """Where a worker gets its batches and hands in what became of them: the Renderer. All calls come from the worker's threads."""

    def next_batch(self, worker: Worker) -> list[Pending]:
        """Waits for work. Empty: the worker is to end."""
        ...

    def hand_in(self, worker: Worker, batch: list[Pending], crops: Sequence[FaceCrop | None]) -> None: ...

    def fail(self, batch: list[Pending], error: BaseException) -> None: ...

    def drop(self, batch: list[Pending]) -> None:
        """They were not drawn, for nobody wants them any more."""
        ...

    def lose(self, worker: Worker, batch: list[Pending], error: DeviceLost) -> None:
        """The device is gone; the batch was not drawn."""
        ...


class Worker:
    """Draws with an engine that returns finished crops."""

    makes_batches = True

    def __init__(self, engine: LipSyncEngine, counter: Counter, clock: Callable[[], float], speed: float | None = None):
        self.engine = engine
        self.speed = Speed(clock, speed)
        self._counter = counter
        self._clock = clock
        self._thread = threading.Thread(target=self._run, name=f"renderer {engine.name}", daemon=True)

    @property
    def frames_per_second(self) -> float | None:
        """As measured; None while too little was."""
        return self.speed.frames_per_second

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while batch := self._counter.next_batch(self):
            begun = self._clock()
            self._draw(batch)
            self._note_speed(len(batch), self._clock() - begun)

    def _draw(self, batch: list[Pending]) -> None:
        try:
            crops = self.engine.render([pending.job for pending in batch])
            _check(batch, crops)
        except DeviceLost as error:
            self._counter.lose(self, batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the futures
            self._draw_each(batch, error)
        else:
            self._counter.hand_in(self, batch, crops)

    def _draw_each(self, batch: list[Pending], error: Exception) -> None:
        """After a batch that failed: each job is tried alone, so that one bad job harms no other session."""
        if len(batch) == 1:
            self._counter.fail(batch, error)
            return
        for pending in batch:
            self._draw([pending])

    def _note_speed(self, frames: int, seconds: float) -> None:
        """Small batches do not use a device fully and say nothing of what it can do."""
        if 2 * frames >= self.engine.max_batch:
            self.speed.note(frames, seconds)


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A batch that is on the device."""

    batch: list[Pending]
    drawing: Drawing
    at: float


class PipelinedWorker(Worker):
    """Draws with an engine on a device: one thread begins batches, another waits for them, copies and pastes."""

    def __init__(self, engine: PipelinedEngine, counter: Counter, clock: Callable[[], float], speed: float | None = None):
        super().__init__(engine, counter, clock, speed)
        self._device = engine
        self._room = threading.Semaphore(DEPTH)
        self._begun: queue.SimpleQueue[_Begun | None] = queue.SimpleQueue()  # bounded by _room
        self._finisher = threading.Thread(target=self._finish_all, name=f"renderer {engine.name} finishing", daemon=True)

    def start(self) -> None:
        self._finisher.start()
        super().start()

    def join(self) -> None:
        super().join()
        if self._finisher.ident is not None and self._finisher is not threading.current_thread():
            self._finisher.join()

    def _run(self) -> None:
        while self._room.acquire() and (batch := self._counter.next_batch(self)):
            self._begin(batch)
        self._begun.put(None)

    def _begin(self, batch: list[Pending]) -> None:
        at = self._clock()
        try:
            drawing = self._device.begin([pending.job for pending in batch])
        except DeviceLost as error:
            self._room.release()
            self._counter.lose(self, batch, error)
        except Exception as error:  # noqa: BLE001 - as in Worker
            self._room.release()
            self._draw_each(batch, error)
        else:
            self._begun.put(_Begun(batch, drawing, at))

    def _finish_all(self) -> None:
        finished_at = 0.0
        while begun := self._begun.get():
            self._finish(begun)
            self._room.release()
            # The device works on one batch after the other: this one's time began when the one before was finished.
            since, finished_at = max(begun.at, finished_at), self._clock()
            self._note_speed(len(begun.batch), finished_at - since)

    def _finish(self, begun: _Begun) -> None:
        try:
            crops = begun.drawing.crops()
            _check(begun.batch, crops)
        except DeviceLost as error:
            self._counter.lose(self, begun.batch, error)
        except Exception as error:  # noqa: BLE001 - as in Worker
            self._draw_each(begun.batch, error)
        else:
            self._counter.hand_in(self, begun.batch, crops)


class QueueWorker(Worker):
    """Passes jobs on to an engine in another process as it takes them; the mouths come back one by one, on that engine's thread."""

    makes_batches = False  # the other process does, of the jobs of all

    def __init__(self, engine: QueueingEngine, counter: Counter, clock: Callable[[], float]):
        super().__init__(engine, counter, clock)
        self._queue = engine

    @property
    def frames_per_second(self) -> float | None:
        return self._queue.frames_per_second

    def start(self) -> None:
        super().start()
        self._queue.when_lost(lambda error: self._counter.lose(self, [], error))

    def join(self) -> None:
        self._queue.close()
        super().join()

    def _run(self) -> None:
        while self._queue.wait_for_room() and (batch := self._counter.next_batch(self)):
            for pending in batch:
                self._pass_on(pending)

    def _pass_on(self, pending: Pending) -> None:
        try:
            mouth = self._queue.submit(pending.job)
        except DeviceLost as error:
            self._counter.lose(self, [pending], error)
        except Exception as error:  # noqa: BLE001 - as in Worker
            self._counter.fail([pending], error)
        else:
            mouth.add_done_callback(lambda mouth: self._hand_in(pending, mouth))

    def _hand_in(self, pending: Pending, mouth: Future[FaceCrop | None]) -> None:
        if mouth.cancelled():
            self._counter.drop([pending])
        elif (error := mouth.exception()) is None:
            self._counter.hand_in(self, [pending], [mouth.result()])
        elif isinstance(error, DeviceLost):
            self._counter.lose(self, [pending], error)
        else:
            self._counter.fail([pending], error)


def make_worker(engine: LipSyncEngine, counter: Counter, clock: Callable[[], float], speed: float | None = None) -> Worker:
    """speed: frames per second as measured before, if they were."""
    if isinstance(engine, QueueingEngine):
        return QueueWorker(engine, counter, clock)
    if isinstance(engine, PipelinedEngine):
        return PipelinedWorker(engine, counter, clock, speed)
    return Worker(engine, counter, clock, speed)


def _check(batch: list[Pending], crops: Sequence[FaceCrop | None]) -> None:
    if len(crops) != len(batch):
        raise ValueError(f"{len(batch)} mouths were wanted, {len(crops)} were drawn")
