"""Draws the most urgent mouths of all sessions on one thread.

`Schedule` decides what is drawn next and knows no thread; `Renderer` runs an engine on what the schedule hands out.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from gpuserver.domain import FaceCrop, LipSyncEngine, MouthJob


@dataclass(frozen=True, slots=True, order=True)
class Pending:
    """A job and the future that waits for its crop; sorts by due time, then by arrival."""

    due: float
    order: int
    job: MouthJob = field(compare=False)
    future: Future[FaceCrop | None] = field(compare=False)


class Schedule:
    """What waits to be drawn, earliest due first over all sessions. Not thread-safe.

    It needs no limit of its own: every Turn has a bounded number of jobs outstanding.
    """

    def __init__(self) -> None:
        self._heap: list[Pending] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The future of the job's crop."""
        future: Future[FaceCrop | None] = Future()
        heapq.heappush(self._heap, Pending(job.due, next(self._order), job, future))
        return future

    def take(self, limit: int) -> list[Pending]:
        """Up to `limit` most urgent jobs. The futures of stale generations are cancelled on the way, given-up ones skipped."""
        batch: list[Pending] = []
        while self._heap and len(batch) < limit:
            pending = heapq.heappop(self._heap)
            if pending.job.generation.cancelled:
                pending.future.cancel()
            if pending.future.set_running_or_notify_cancel():
                batch.append(pending)
        return batch

    def cancel_all(self) -> None:
        """Give up everything that waits."""
        for pending in self._heap:
            pending.future.cancel()
            pending.future.set_running_or_notify_cancel()
        self._heap.clear()


class Renderer:
    """One thread that draws for all sessions."""

    def __init__(self, engine: LipSyncEngine):
        self._engine = engine
        self._schedule = Schedule()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="renderer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come. The future is cancelled if the job's generation is, or if the renderer is closed first."""
        with self._changed:
            future = self._schedule.add(job)
            if self._closed:
                self._schedule.cancel_all()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish the batch in work, cancel what waits, end the thread."""
        with self._changed:
            self._closed = True
            self._schedule.cancel_all()
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            draw(self._engine, batch)

    def _next_batch(self) -> list[Pending]:
        """Waits for work; empty when the renderer is closed."""
        with self._changed:
            while not self._closed:
                if batch := self._schedule.take(self._engine.max_batch):
                    return batch
                self._changed.wait()
            return []


def draw(engine: LipSyncEngine, batch: list[Pending]) -> None:
    """Draws a batch and settles its futures. If it fails, each job is tried alone: one bad job harms no other session."""
    try:
        drawn = list(zip(batch, engine.render([pending.job for pending in batch]), strict=True))
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the future
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        for pending in batch:
            draw(engine, [pending])
        return
    for pending, crop in drawn:
        pending.future.set_result(crop)
