"""What gives way when mouths cannot be drawn in time: first every second mouth, then the network; never the sound, never a call."""

from __future__ import annotations

import math
from enum import StrEnum

LATE_SECONDS = 0.08  # two frames: what the first frame of a Turn is late, those booked together with it are too
DOWN_SECONDS = 0.2  # of lateness without a break until the next step is taken: longer than a hiccup of the machine
CALM_SECONDS = 10.0  # without lateness until a step is taken back
LONGEST_CALM_SECONDS = 160.0


class Step(StrEnum):
    """How mouths are drawn, best first."""

    FULL = "full"  # 25 a second, by the best engine
    HALF = "half"  # 12.5 a second: every second frame carries on the mouth of the one before
    SPARE = "spare"  # 25 a second, by the spare engine


class Ladder:
    """Goes down one step after 0.2 s of lateness and up again after 10 s of calm. Told the time, it knows no clock.

    If lateness comes back soon after a step up, the next one waits twice as long, at most 160 s: a lasting overload is not tried
    again and again. steps: those that can be taken, best first; where there is one engine only, SPARE is not among them.
    """

    def __init__(self, steps: tuple[Step, ...] = tuple(Step)):
        self._steps = steps
        self._level = 0
        self._patience = CALM_SECONDS
        self._late_since = math.inf
        self._last_late = -math.inf
        self._changed_at = -math.inf
        self._went_up = False

    @property
    def step(self) -> Step:
        return self._steps[self._level]

    def allow(self, steps: tuple[Step, ...]) -> None:
        """The steps that can be taken from now on; begins at the best."""
        self._steps, self._level = steps, 0
        self._late_since = math.inf

    def observe(self, now: float, lateness: float) -> bool:
        """A mouth was drawn `lateness` seconds after it was due (negative: before). Whether the step changes with it."""
        if lateness > LATE_SECONDS:
            self._last_late = now
            self._late_since = min(self._late_since, now)
            return now - self._late_since >= DOWN_SECONDS and self._step_down(now)
        self._late_since = math.inf
        return self._level > 0 and now - max(self._last_late, self._changed_at) >= self._patience and self._step_up(now)

    def _step_down(self, now: float) -> bool:
        if self._level == len(self._steps) - 1:
            return False
        relapsed = self._went_up and now - self._changed_at < self._patience
        self._patience = min(2 * self._patience, LONGEST_CALM_SECONDS) if relapsed else CALM_SECONDS
        return self._change(now, +1)

    def _step_up(self, now: float) -> bool:
        return self._change(now, -1)

    def _change(self, now: float, by: int) -> bool:
        self._level += by
        self._went_up = by < 0
        self._changed_at = now
        self._late_since = math.inf  # what waits already is late whatever is done; it gets its 0.2 s anew
        return True
