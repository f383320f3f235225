"""How many bits per second a connection's pictures may take, from what the browser estimates (REMB)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

LADDER = (250_000, 400_000, 650_000, 1_000_000, 1_500_000)  # bit/s; a step costs a new encoder and a key frame
MEASURED_SECONDS = 1.0
NEAR = 1.1  # an estimate this near to what was sent is a limit of the network, not of what there was to send
CLIMB_SECONDS = 5.0  # between two steps up


class Bitrate:
    """The step of LADDER that a connection is on. It starts at the top, falls at once and climbs slowly.

    A browser estimates little more than it receives. While the loop idles at 300 kbit/s its estimate says nothing about
    what the network could carry, so only an estimate near what was really sent counts as a limit.
    """

    def __init__(self, monotonic: Callable[[], float]):
        self._monotonic = monotonic
        self._step = len(LADDER) - 1
        self._changed_at = monotonic()
        self._sent: deque[tuple[float, int]] = deque()

    @property
    def limit(self) -> int:
        """bit/s."""
        return LADDER[self._step]

    def note_sent(self, size: int) -> None:
        """`size` bytes of pictures have left."""
        now = self._monotonic()
        self._sent.append((now, size))
        while self._sent[0][0] < now - MEASURED_SECONDS:
            self._sent.popleft()

    def note_estimate(self, estimate: int) -> None:
        """The browser believes that the network carries `estimate` bit/s."""
        now = self._monotonic()
        sent = sum(size for _, size in self._sent) * 8 / MEASURED_SECONDS
        if estimate < sent * NEAR:
            fitting = sum(step <= estimate for step in LADDER[1:])
            if fitting < self._step:
                self._step, self._changed_at = fitting, now
        elif self._step < len(LADDER) - 1 and now - self._changed_at >= CLIMB_SECONDS:
            self._step, self._changed_at = self._step + 1, now
