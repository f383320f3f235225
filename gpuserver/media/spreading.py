"""When a picture's packets may leave: those of a large one in groups, not all at once.

A key frame is 20 to 60 kB. In one burst it overflows the buffer before a slow link, and what is lost has to be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

RATE = 1_250_000  # byte/s: 10 Mbit/s, with which a key frame of 50 kB has left when the next picture is due
GROUP = 8  # packets that leave together: 10 kB, which few pictures but key frames exceed


class Spreading:
    """The packets of one stream. now: the time in seconds."""

    def __init__(self, now: Callable[[], float]):
        self._now = now
        self._free_at = now()

    def groups(self, payloads: Sequence[bytes]) -> Iterator[tuple[float, Sequence[bytes]]]:
        """The packets of one picture in groups, and the seconds to wait before each.

        Where a busy event loop comes late to a group, those after it are due at the same time as ever.
        """
        self._free_at = max(self._free_at, self._now())
        for start in range(0, len(payloads), GROUP):
            group = payloads[start : start + GROUP]
            yield max(0.0, self._free_at - self._now()), group
            self._free_at += sum(map(len, group)) / RATE
