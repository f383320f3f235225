"""How many sessions the engines can serve, by what was measured of them and of the sessions."""

from __future__ import annotations

from typing import Protocol

from gpuserver.domain import FPS

HEADROOM = 0.9  # of the capacity: speech comes in bursts
ASSUMED_DUTY = 0.5  # share of the time that a session speaks: a student asks, an avatar answers
ASSUMED_SECONDS = 600.0  # of a session's time that the assumption weighs as much as
LEAST_DUTY = 0.2  # silent sessions may all begin to speak
MEMORY_SECONDS = 3600.0  # of sessions' time


class Measured(Protocol):
    """Renderer, as far as admission needs it."""

    def capacity(self) -> float | None:
        """Mouths per second at full quality; None before it was measured."""
        ...

    def shown(self) -> int:
        """Mouths that were drawn or lent since the start."""
        ...


class Admission:
    """A session is let in while  sessions x 25 x duty <= 0.9 x capacity.

    capacity: mouths per second, as the engines' warm-up and since then their work measured them. duty: the share of their time that
    sessions speak, measured as mouths shown / (25 x seconds of sessions), beginning with 0.5 as if 600 s of that had been seen;
    never below 0.2. One session is always let in. Before anything was measured there is no limit.
    """

    def __init__(self, measured: Measured):
        self._measured = measured
        self._sessions = 0
        self._noted_at = 0.0
        self._shown = 0
        self._session_seconds = ASSUMED_SECONDS
        self._spoken_seconds = ASSUMED_DUTY * ASSUMED_SECONDS

    def note(self, now: float, sessions: int) -> None:
        """The number of sessions changes, or is asked for, at `now` (seconds on any clock); `sessions` from now on."""
        shown = self._measured.shown()
        self._session_seconds += (now - self._noted_at) * self._sessions
        self._spoken_seconds += (shown - self._shown) / FPS
        if self._session_seconds > MEMORY_SECONDS:
            self._spoken_seconds *= MEMORY_SECONDS / self._session_seconds
            self._session_seconds = MEMORY_SECONDS
        self._noted_at, self._shown, self._sessions = now, shown, sessions

    @property
    def duty(self) -> float:
        """Share of the time, 0.2 to 1."""
        return min(max(self._spoken_seconds / self._session_seconds, LEAST_DUTY), 1.0)

    def most_sessions(self) -> int | None:
        """As many can be served; None while that is not known."""
        capacity = self._measured.capacity()
        return None if capacity is None else max(1, int(HEADROOM * capacity / (FPS * self.duty)))
