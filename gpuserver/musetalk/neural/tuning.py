"""Chooses how the networks work on this very GPU: every way is compared with the plain one and timed, and the fastest right one stays."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpuserver.musetalk.networks.fusion import Fusion, Operations, PlainOperations, Upsampling
from gpuserver.musetalk.neural.gpu_errors import first_line
from gpuserver.musetalk.neural.recording import Recording

MOST_LEVELS = 3.0  # of 255, root of the mean square: two roundings of the same network differ by less than one, a mistake by tens
_LAUNCHES = 5  # that are timed together
_ROUNDS = 5
_WORTHWHILE = 0.99  # of the time before

Stopwatch = Callable[[Recording], float]  # milliseconds of a launch
Step = Callable[[Fusion], Fusion]  # from the best fusion so far to one that may be better; may raise anything


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one way of working. milliseconds: of a batch, None where it cannot be used; refusal says why then."""

    name: str
    batch: int
    milliseconds: float | None
    chosen: bool = False
    refusal: str = ""

    def __str__(self) -> str:
        if self.milliseconds is None:
            return f"{self.name}: not used, {self.refusal}"
        return f"{self.name}: {self.milliseconds:.2f} ms for {self.batch} faces{', chosen' if self.chosen else ''}"


class Tuning:
    """Tries one step after the other, each on top of the best so far. require_device: raises if the GPU is lost, not just a step."""

    def __init__(
        self,
        steps: Sequence[tuple[str, Step]] | None = None,
        stopwatch: Stopwatch | None = None,
        require_device: Callable[[], object] | None = None,
    ):
        self._steps = STEPS if steps is None else steps
        self._stopwatch = stopwatch or milliseconds
        self._require_device = require_device or torch.cuda.synchronize

    def choose(self, plain: Recording, fuse: Callable[[Fusion], None], record: Callable[[], Recording]) -> tuple[Recording, list[Trial]]:
        """The best recording and what was tried; the networks stay fused as it needs them. Raises RuntimeError if the GPU is lost.

        plain: made without fusion. fuse: makes the networks work so; record: makes a recording of them as they are.
        """
        best, fusion, batch = plain, Fusion(), len(plain.rows)
        expected = _drawn(plain)
        fastest = self._stopwatch(plain)
        trials = [Trial(PLAIN, batch, fastest, chosen=True)]
        for name, step in self._steps:
            try:
                wanted = step(fusion)
                fuse(wanted)
                recording = record()
                _require_likeness(_drawn(recording), expected, recording.refusal)
                taken = self._stopwatch(recording)
            except Exception as error:  # noqa: BLE001 - a compiler that is missing or fails raises anything; the plain way is there
                self._require_device()
                trials.append(Trial(name, batch, None, refusal=f"{type(error).__name__}: {first_line(error)}"))
                continue
            trials.append(Trial(name, batch, taken))
            if taken < fastest * _WORTHWHILE:
                trials = [replace(trial, chosen=trial is trials[-1]) for trial in trials]
                best, fusion, fastest = recording, wanted, taken
        fuse(fusion)
        return best, trials


def triton_operations() -> Operations:
    """Raises ImportError where there is no Triton."""
    from gpuserver.musetalk.neural.triton_operations import TritonOperations

    return TritonOperations()


PLAIN = "torch's own norms"
STEPS: Sequence[tuple[str, Step]] = (
    ("norms by operations in the convolutions' layout", lambda best: replace(best, operations=PlainOperations())),
    ("norms by our Triton kernels", lambda best: replace(best, operations=triton_operations())),
    ("upsampling as transposed convolutions", lambda best: replace(best, upsampling=Upsampling.TRANSPOSED)),
    ("upsampling as interleaved convolutions", lambda best: replace(best, upsampling=Upsampling.INTERLEAVED)),
)


def milliseconds(recording: Recording) -> float:
    """Of one launch on the current stream; the median of some rounds."""
    taken: list[float] = []
    recording.launch()
    for _ in range(_ROUNDS):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begun.record()
        for _ in range(_LAUNCHES):
            recording.launch()
        ended.record()
        ended.synchronize()
        taken.append(begun.elapsed_time(ended) / _LAUNCHES)
    return statistics.median(taken)


def _drawn(recording: Recording) -> tuple[Tensor, Tensor]:
    """Pictures (float32) and usable of random latents and sound, the same for every recording."""
    generator = torch.Generator().manual_seed(1)
    for target in (recording.latents, recording.rows):
        target.copy_(torch.randn(target.shape, generator=generator))
    recording.launch()
    return recording.pictures.float(), recording.usable.clone()


def _require_likeness(drawn: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], refusal: str) -> None:
    """Raises ValueError where the result is another, or is no recording."""
    if refusal:
        raise ValueError(f"it cannot be recorded: {refusal}")
    (pictures, usable), (wanted, wanted_usable) = drawn, expected
    if not torch.equal(usable, wanted_usable):
        raise ValueError("it gives numbers that are not finite, or hides them")
    levels = float((pictures - wanted)[usable].square().mean().sqrt()) if usable.any() else 0.0
    if not levels <= MOST_LEVELS:
        raise ValueError(f"its pictures are {levels:.1f} levels of 255 off")
