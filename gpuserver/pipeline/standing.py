"""What every session's client should know as long as it lasts: a fallback of the engines, an overload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpuserver.messages import Notice


@dataclass(frozen=True, slots=True)
class Standing:
    """A notice on a topic. lasts: else it only takes back what was said on the topic before."""

    topic: str
    notice: Notice
    lasts: bool


class StandingNotices:
    """The latest notice per topic, for all sessions of a process. Not thread-safe: belongs to the event loop."""

    def __init__(self) -> None:
        self._latest: dict[str, Standing] = {}
        self._listeners: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._latest.values())

    def listen(self, on_change: Callable[[], None]) -> None:
        self._listeners.append(on_change)

    def say(self, topic: str, code: str, text: str) -> None:
        """From now on this holds."""
        self._set(Standing(topic, Notice(code=code, text=text), lasts=True))

    def take_back(self, topic: str, code: str, text: str) -> None:
        """What was said on the topic holds no longer."""
        self._set(Standing(topic, Notice(code=code, text=text), lasts=False))

    def _set(self, standing: Standing) -> None:
        self._latest[standing.topic] = standing
        for on_change in self._listeners:
            on_change()


class Told:
    """What one session's client was told of them."""

    def __init__(self) -> None:
        self._told: dict[str, Notice] = {}

    def news(self, notices: StandingNotices) -> list[Notice]:
        """What is to be told now: what holds and was not told, and the end of what was."""
        found = []
        for standing in notices:
            if standing.lasts:
                if self._told.get(standing.topic) != standing.notice:
                    self._told[standing.topic] = standing.notice
                    found.append(standing.notice)
            elif self._told.pop(standing.topic, None) is not None:
                found.append(standing.notice)
        return found
