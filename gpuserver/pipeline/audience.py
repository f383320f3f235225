"""Who sees and hears a session: peers that are connected, and peers on their way."""

from __future__ import annotations

import asyncio

ARRIVAL_SECONDS = 5.0  # that a question waits for a peer on its way; ICE and DTLS take 0.1 to 2 s where they succeed


class Audience:
    """Counts; a peer that is on its way is attached before it is no longer expected. Belongs to one event loop."""

    def __init__(self) -> None:
        self._there = 0
        self._coming = 0
        self.expected_until = 0.0  # the loop's time

    @property
    def is_there(self) -> bool:
        return self._there > 0

    @property
    def is_awaited(self) -> bool:
        """Whether nobody is there and somebody is on the way."""
        return self._coming > 0 and not self.is_there

    def expect(self) -> None:
        """One is on its way."""
        self._coming += 1
        self.expected_until = asyncio.get_running_loop().time() + ARRIVAL_SECONDS

    def expect_no_longer(self) -> None:
        """It has arrived, or given up."""
        self._coming = max(0, self._coming - 1)

    def attach(self) -> None:
        self._there += 1

    def detach(self) -> None:
        self._there = max(0, self._there - 1)
