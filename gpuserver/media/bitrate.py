"""How many bits per second a connection's pictures may take, from what the browser estimates (REMB) and asks for (PLI)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

LADDER = (250_000, 400_000, 650_000, 1_000_000, 1_500_000)  # bit/s; a step costs a new encoder and a key frame
MEASURED_SECONDS = 1.0
NEAR = 1.1  # an estimate that falls this near to what was sent is a limit of the network, not of what there was to send
FAR = 0.5  # one so far below is a limit even if it does not fall: most of what was sent has not arrived
CLIMB_SECONDS = 5.0  # between two steps up
LONGEST_CLIMB_SECONDS = 80.0


class Bitrate:
    """The step of LADDER that a connection is on. It starts at the top, falls at once and climbs slowly.

    A browser estimates little more than it has received, and lets its estimate grow by a few percent per second: where speech
    follows on idling it is lower than what is sent and says nothing about what the network could carry. So it counts as a limit
    if it falls, because the browser has seen packets wait, or if it is far too low. A step up that does not last is tried again
    after twice the time.
    """

    def __init__(self, monotonic: Callable[[], float]):
        self._monotonic = monotonic
        self._step = len(LADDER) - 1
        self._estimate = 0
        self._fell_at = -math.inf
        self._patience = CLIMB_SECONDS
        self._climbed = False  # the last change was a step up
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
        if estimate < self._estimate:
            self._fell_at = now
        self._estimate = estimate
        sent = sum(size for _, size in self._sent) * 8 / MEASURED_SECONDS
        if estimate < sent * (NEAR if now - self._fell_at <= MEASURED_SECONDS else FAR):
            self._fall(sum(step <= estimate for step in LADDER[1:]))
        elif estimate >= sent * NEAR and now - self._changed_at >= self._patience:
            self._climb()

    def note_lost_key_frame(self) -> None:
        """The browser asks for a key frame just after it was sent one: it was too large for the network."""
        self._fall(self._step - 1)

    def _fall(self, step: int) -> None:
        if not 0 <= step < self._step:
            return
        now = self._monotonic()
        if self._climbed:
            relapse = now - self._changed_at < 2 * CLIMB_SECONDS
            self._patience = min(2 * self._patience, LONGEST_CLIMB_SECONDS) if relapse else CLIMB_SECONDS
        self._step, self._changed_at, self._climbed = step, now, False

    def _climb(self) -> None:
        if self._step < len(LADDER) - 1:
            self._step, self._changed_at, self._climbed = self._step + 1, self._monotonic(), True
