"""Decides which mouths are drawn next. It knows no thread and no clock: the time comes with the question."""

from __future__ import annotations

import heapq
import itertools
import math
from concurrent.futures import Future
from dataclasses import dataclass, field

from gpuserver.domain import FaceCrop, MouthJob

RENDER_AHEAD_SECONDS = 1.0  # what is due later waits: drawn too early it is only wasted by an interrupt
GATHERED_SECONDS = 0.2  # what is due so soon after that is drawn along: five mouths at a time cost half as much each as one by one

Crop = Future[FaceCrop | None]


@dataclass(frozen=True, slots=True, order=True)
class Pending:
    """A job and the future that waits for its crop; sorts by urgency, then by arrival.

    urgency: when it is due. A Turn's first frames count as due a second earlier, so they go before all render-ahead.
    """

    urgency: float
    order: int
    job: MouthJob = field(compare=False)
    future: Crop = field(compare=False)

    @property
    def is_stale(self) -> bool:
        """Whether nobody wants it any more."""
        return self.job.generation.cancelled or self.future.cancelled()


class Schedule:
    """What waits to be drawn, earliest due first over all sessions. Not thread-safe.

    It needs no limit of its own: every Turn has a bounded number of jobs outstanding.
    """

    def __init__(self) -> None:
        self._heap: list[Pending] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: MouthJob) -> Crop:
        """The future of the job's crop."""
        future: Crop = Future()
        urgency = job.due - RENDER_AHEAD_SECONDS if job.opening else job.due
        heapq.heappush(self._heap, Pending(urgency, next(self._order), job, future))
        return future

    def put_back(self, batch: list[Pending]) -> None:
        """What was taken and could not be drawn waits again, in its old place."""
        for pending in batch:
            heapq.heappush(self._heap, pending)

    def take(self, limit: int, now: float = math.inf) -> list[Pending]:
        """Up to `limit` most urgent jobs, if there is one that is due within a second; the others may be due a little later.

        Their number is not waited for. The futures of stale generations are cancelled on the way, given-up ones skipped.
        """
        batch: list[Pending] = []
        while self._heap and len(batch) < limit:
            horizon = now + RENDER_AHEAD_SECONDS + (GATHERED_SECONDS if batch else 0)
            if self._heap[0].urgency > horizon and not self._heap[0].is_stale:
                break
            pending = heapq.heappop(self._heap)
            if pending.is_stale:
                cancel(pending)
            elif pending.future.running() or pending.future.set_running_or_notify_cancel():
                batch.append(pending)
        return batch

    def seconds_to_next(self, now: float) -> float | None:
        """How long until something may be taken; None while nothing waits."""
        return max(0.0, self._heap[0].urgency - RENDER_AHEAD_SECONDS - now) if self._heap else None

    def give_all_to(self, other: Schedule) -> None:
        """Everything that waits here waits there from now on."""
        for pending in self._heap:
            heapq.heappush(other._heap, pending)
        self._heap.clear()

    def cancel_all(self) -> None:
        """Give up everything that waits."""
        for pending in self._heap:
            cancel(pending)
        self._heap.clear()


def cancel(pending: Pending) -> None:
    """Let go of whoever waits for the crop; a future that is running already cannot be cancelled and gets none."""
    if pending.future.cancel():
        pending.future.set_running_or_notify_cancel()
    elif not pending.future.done():
        pending.future.set_result(None)
