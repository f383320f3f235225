"""Decides who draws which mouth and when; told the time, it knows no thread, no clock and no engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum

from gpuserver.domain import FaceCrop, MouthJob
from gpuserver.musetalk.rendering.ladder import Ladder, Step
from gpuserver.musetalk.rendering.lending import Lending
from gpuserver.musetalk.rendering.render_stats import EngineStats, RendererStats, Tally
from gpuserver.musetalk.rendering.schedule import Crop, Pending, Schedule


class Desk(Enum):
    """Where jobs wait: for the engines on devices, or for the spare one."""

    DEVICE = "device"
    SPARE = "spare"


class Dispatch:
    """The policy of the Renderer. Not thread-safe.

    Jobs that suit devices wait for them while there are any and the ladder lets them; all others wait for the spare engine.
    Without a ladder nothing gives way: for films, where nobody waits.
    """

    def __init__(self, ladder: Ladder | None = None):
        self.devices = 0
        self._schedules = {desk: Schedule() for desk in Desk}
        self._suits_devices: Callable[[MouthJob], bool] = lambda job: False
        self._ladder = ladder
        self._lending = Lending()
        self._tally = Tally()
        self._allow_steps()

    @property
    def step(self) -> Step:
        return Step.FULL if self._ladder is None else self._ladder.step

    @property
    def best_desk(self) -> Desk:
        """Where jobs that suit devices go now."""
        return Desk.DEVICE if self.devices and self.step is not Step.SPARE else Desk.SPARE

    @property
    def shown(self) -> int:
        """Mouths that were drawn or lent."""
        return self._tally.drawn + self._tally.lent

    def submit(self, job: MouthJob) -> tuple[Desk, Crop]:
        """Where the job waits, and the future of its crop."""
        desk = self.best_desk if self._suits_devices(job) else Desk.SPARE
        return desk, self._schedules[desk].add(job)

    def take(self, desk: Desk, limit: int, now: float) -> list[Pending]:
        """The next batch, as many as there are up to the limit, without the frames that are lent a mouth."""
        schedule = self._schedules[desk]
        if self.step is not Step.HALF:
            return schedule.take(limit, now)
        batch: list[Pending] = []
        while taken := schedule.take(limit - len(batch), now):
            drawn = [pending for pending in taken if not self._lending.lends(pending)]
            self._tally.lent += len(taken) - len(drawn)
            batch += drawn
        return batch

    def seconds_to_next(self, desk: Desk, now: float) -> float | None:
        """How long until take() gives something; None while nothing waits."""
        return self._schedules[desk].seconds_to_next(now)

    def hand_in(self, batch: list[Pending], crops: Sequence[FaceCrop | None], now: float, *, is_batch: bool = True) -> bool:
        """The batch has been drawn. Whether the step changes with it. is_batch: whether the engine drew just these at once."""
        if is_batch:
            self._tally.batch_sizes[len(batch)] += 1
        self._note(batch, crops, now)
        dues = [pending.job.due for pending in batch if not (pending.job.opening or pending.job.generation.cancelled)]
        # The most late one counts. A Turn's first frames do not: they are due when they are ordered.
        if self._ladder is None or not dues or not self._ladder.observe(now, now - min(dues)):
            return False
        self._tally.step_changes += 1
        self._lending.forget()
        if self.best_desk is Desk.SPARE:
            self._give_all_to_spare()
        return True

    def note_failure(self, batch: list[Pending]) -> None:
        self._tally.failed += len(batch)

    def add_devices(self, count: int, suits: Callable[[MouthJob], bool]) -> None:
        """From now on there are so many devices more, for the jobs that `suits` them."""
        self.devices += count
        self._suits_devices = suits
        self._allow_steps()

    def lose_device(self) -> None:
        """A device is gone; what waits for the last one goes to the spare engine."""
        self.devices -= 1
        self._tally.devices_lost += 1
        if not self.devices:
            self._give_all_to_spare()
            self._allow_steps()

    def put_back(self, batch: list[Pending]) -> None:
        """A device's batch was not drawn: it waits again, in its old place, for those that can draw it now."""
        self._schedules[self.best_desk].put_back(batch)

    def cancel_all(self) -> None:
        for schedule in self._schedules.values():
            schedule.cancel_all()

    def stats(self, engines: tuple[EngineStats, ...]) -> RendererStats:
        return self._tally.snapshot(engines, self.step, sum(len(schedule) for schedule in self._schedules.values()))

    def _note(self, batch: list[Pending], crops: Sequence[FaceCrop | None], now: float) -> None:
        tally = self._tally
        tally.drawn += len(batch)
        tally.stale += sum(pending.job.generation.cancelled for pending in batch)
        tally.not_drawn += sum(crop is None for crop in crops)
        for pending in batch:
            if not pending.job.opening:
                tally.note_lateness(now - pending.job.due)

    def _give_all_to_spare(self) -> None:
        self._schedules[Desk.DEVICE].give_all_to(self._schedules[Desk.SPARE])

    def _allow_steps(self) -> None:
        if self._ladder is not None:
            self._ladder.allow(tuple(Step) if self.devices else (Step.FULL, Step.HALF))


def settle(batch: list[Pending], crops: Sequence[FaceCrop | None], engine: str) -> None:
    """Give everyone who waits the crop, signed by the engine that drew it."""
    for pending, crop in zip(batch, crops, strict=True):
        pending.future.set_result(None if crop is None else replace(crop, engine=engine))
