"""What the Renderer counts: for /health, for metrics, and for how many sessions are let in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpuserver.musetalk.rendering.ladder import Step

_MEMORY = 500  # frames after which a measurement counts half
_ENOUGH = 100  # frames until a measurement counts at all: the first ones of an avatar are slow
_FRESH_SECONDS = 60.0  # without frames; after that a measurement may be of a time when the machine was busy with something else


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine. frames_per_second: while it works on batches of a fair size; None before it was measured."""

    name: str
    frames_per_second: float | None
    out_of_memory: int  # times that a batch had to be halved


@dataclass(frozen=True, slots=True)
class RendererStats:
    """A snapshot. Counters run from the start of the process; lateness is in seconds after a mouth was due."""

    engines: tuple[EngineStats, ...]  # those that draw now, the best first, the spare one last
    step: Step
    step_changes: int
    queued: int
    batches: int
    batch_sizes: Mapping[int, int]  # size -> batches
    drawn: int
    lent: int  # frames that carried on the mouth of the one before
    stale: int  # drawn for an answer that was interrupted meanwhile
    late: int
    lateness_sum: float
    lateness_max: float
    not_drawn: int  # the network gave no usable picture: the source's own mouth was shown
    failed: int  # an engine raised an error
    devices_lost: int


@dataclass(slots=True)
class Tally:
    """The counters while they run. Not thread-safe."""

    step_changes: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    drawn: int = 0
    lent: int = 0
    stale: int = 0
    late: int = 0
    lateness_sum: float = 0.0
    lateness_max: float = 0.0
    not_drawn: int = 0
    failed: int = 0
    devices_lost: int = 0

    def note_lateness(self, lateness: float) -> None:
        """Seconds after it was due; negative: before."""
        if lateness > 0:
            self.late += 1
            self.lateness_sum += lateness
            self.lateness_max = max(self.lateness_max, lateness)

    def snapshot(self, engines: tuple[EngineStats, ...], step: Step, queued: int) -> RendererStats:
        return RendererStats(
            engines=engines,
            step=step,
            step_changes=self.step_changes,
            queued=queued,
            batches=self.batch_sizes.total(),
            batch_sizes=dict(self.batch_sizes),
            drawn=self.drawn,
            lent=self.lent,
            stale=self.stale,
            late=self.late,
            lateness_sum=self.lateness_sum,
            lateness_max=self.lateness_max,
            not_drawn=self.not_drawn,
            failed=self.failed,
            devices_lost=self.devices_lost,
        )


class Speed:
    """Frames per second of work, a running mean that forgets: 500 frames later a measurement counts half, 60 s after the last one nothing.

    seed: what was measured beforehand; None where nothing was.
    """

    def __init__(self, clock: Callable[[], float], seed: float | None = None):
        self._clock = clock
        self._seed = seed
        self._noted_at = clock()
        self._frames, self._seconds = self._seeded()

    def note(self, frames: int, seconds: float) -> None:
        """So many frames took so many seconds, waiting for work left out."""
        if self._is_stale:
            self._frames, self._seconds = self._seeded()
        kept = 0.5 ** (frames / _MEMORY)
        self._frames = self._frames * kept + frames
        self._seconds = self._seconds * kept + seconds
        self._noted_at = self._clock()

    @property
    def frames_per_second(self) -> float | None:
        """None while too little was measured."""
        if self._is_stale:
            return self._seed
        return self._frames / self._seconds if self._frames >= _ENOUGH and self._seconds > 0 else None

    @property
    def _is_stale(self) -> bool:
        return self._clock() - self._noted_at > _FRESH_SECONDS

    def _seeded(self) -> tuple[float, float]:
        """What counts before anything is noted: frames, seconds."""
        return (0.0, 0.0) if self._seed is None else (float(_ENOUGH), _ENOUGH / self._seed)
