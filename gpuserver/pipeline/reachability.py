"""Whether a service answers, as far as the last attempts tell. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable


class Reachability:
    """Starts as untried. monotonic: a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]):
        self._monotonic = monotonic
        self._lost_at: float | None = None
        self.state = "untried"  # or "ok", "unreachable"
        self.reason: str | None = None  # why it is unreachable: one plain sentence

    @property
    def lost(self) -> bool:
        return self._lost_at is not None

    def lost_for(self) -> float:
        """Seconds since the last failed attempt; 0 while it is not lost."""
        return 0.0 if self._lost_at is None else self._monotonic() - self._lost_at

    def note_found(self) -> bool:
        """An attempt succeeded; True if that is news."""
        news = self.state != "ok"
        self.state, self.reason, self._lost_at = "ok", None, None
        return news

    def note_lost(self, reason: str) -> bool:
        """An attempt failed; True if that is news."""
        news = self.state != "unreachable"
        self.state, self.reason, self._lost_at = "unreachable", reason, self._monotonic()
        return news
