"""Words that are announced with their times become visemes that cover the sound, piece by piece. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence

from gpuserver.domain import TimedViseme, Viseme
from gpuserver.pipeline.phonemes import SHORTEST_PAUSE, TimedPhoneme, visemes

UNKNOWN = Viseme.E  # shown where a sound was not announced: the lips open as far as it is loud
ROUNDING = 1e-9  # seconds: times are not exact in floating point


class VisemeTrack:
    """The lips of one sentence. All times are seconds from its beginning."""

    def __init__(self) -> None:
        self._ahead: list[TimedViseme] = []  # touching; the first one may have begun
        self._given = 0.0
        self.known = 0.0  # up to here the lips are known

    def announce(self, start: float, phonemes: Sequence[TimedPhoneme]) -> None:
        """A word begins at `start`. Words come in order; of what was given out already nothing is taken back.

        The service's words overlap by some 10 ms (https://github.com/microsoft/cognitive-services-speech-sdk-js/issues/534): the
        earlier one ends where the later one begins.
        """
        begin = max(start, self._given)
        self._cut(begin)
        gap = begin - self.known
        if gap > 0:
            last = self._ahead[-1] if self._ahead else None
            bridged = last is not None and gap < SHORTEST_PAUSE
            self._append(last.viseme if bridged and last else Viseme.SIL, begin)
        for timed in visemes(phonemes):
            self._append(timed.viseme, start + timed.end)

    def take(self, seconds: float, *, ending: bool = False) -> tuple[TimedViseme, ...]:
        """The visemes of the next `seconds` of sound, from 0 on. What was not announced is UNKNOWN, or silence once all is."""
        end = self._given + seconds
        if end - self.known > ROUNDING:
            self._append(Viseme.SIL if ending else UNKNOWN, end)
        piece = [
            TimedViseme(timed.viseme, max(timed.start, self._given) - self._given, min(timed.end, end) - self._given)
            for timed in self._ahead
            if timed.start < end - ROUNDING and timed.end > self._given + ROUNDING
        ]
        self._ahead = [timed for timed in self._ahead if timed.end > end + ROUNDING]
        self._given = end
        return tuple(piece)

    def _cut(self, at: float) -> None:
        """Forget what was to be shown after `at`."""
        if self.known > at:
            self._ahead = [TimedViseme(timed.viseme, timed.start, min(timed.end, at)) for timed in self._ahead if timed.start < at]
            self.known = at

    def _append(self, viseme: Viseme, end: float) -> None:
        last = self._ahead[-1] if self._ahead else None
        if end <= self.known:
            return
        if last is not None and last.viseme is viseme:
            self._ahead[-1] = TimedViseme(viseme, last.start, end)
        else:
            self._ahead.append(TimedViseme(viseme, self.known, end))
        self.known = end
