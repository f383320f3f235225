"""Which way of working is chosen: the fastest of those that draw the same pictures. Recordings and their times are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gpuserver.musetalk.networks.fusion import Fusion, PlainOperations, Upsampling
from gpuserver.musetalk.neural.recording import Recording
from gpuserver.musetalk.neural.tuning import STEPS, Step, Tuning, milliseconds

OPERATIONS = PlainOperations()


class FakeWorkshop:
    """A network that takes as many milliseconds, and is as many levels off, as is set down for each way of working."""

    def __init__(self) -> None:
        self.fusion = Fusion()
        self.milliseconds: dict[tuple[bool, bool], float] = {}
        self.levels: dict[tuple[bool, bool], float] = {}
        self.usable = True
        self.refusal = ""
        self.device_lost = False

    @property
    def way(self) -> tuple[bool, bool]:
        return self.fusion.operations is not None, self.fusion.upsampling is not Upsampling.REPEATED

    def fuse(self, fusion: Fusion) -> None:
        self.fusion = fusion

    def record(self) -> Recording:
        way = self.way
        pictures, usable = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.ones(2, dtype=torch.bool)

        def launch() -> None:
            pictures.fill_(100 + int(self.levels.get(way, 0)))
            usable.fill_(self.usable)

        rows = torch.full((2, 3, 4), self.milliseconds[way])  # until random sound is laid in
        recording = Recording(launch, torch.zeros(2, 8, 4, 4), rows, pictures, usable, self.refusal)
        self.times = {**getattr(self, "times", {}), id(recording): self.milliseconds[way]}
        return recording

    def choose(self, *steps: tuple[str, Step]) -> tuple[Recording, list[str]]:
        plain = self.record()
        tuning = Tuning(steps, lambda recording: self.times[id(recording)], self.require_device)
        best, trials = tuning.choose(plain, self.fuse, self.record)
        return best, [str(trial) for trial in trials]

    def require_device(self) -> None:
        if self.device_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


JOINED: tuple[str, Step] = ("joined", lambda best: replace(best, operations=OPERATIONS))
TRANSPOSED: tuple[str, Step] = ("transposed", lambda best: replace(best, upsampling=Upsampling.TRANSPOSED))


@pytest.fixture
def workshop() -> FakeWorkshop:
    made = FakeWorkshop()
    made.milliseconds = {(False, False): 20.0, (True, False): 15.0, (False, True): 17.0, (True, True): 12.0}
    return made


def test_every_step_that_is_faster_is_kept(workshop: FakeWorkshop) -> None:
    _, said = workshop.choose(JOINED, TRANSPOSED)
    assert workshop.fusion == Fusion(OPERATIONS, upsampling=Upsampling.TRANSPOSED)
    assert said == ["torch's own norms: 20.00 ms for 2 faces", "joined: 15.00 ms for 2 faces", "transposed: 12.00 ms for 2 faces, chosen"]


def test_a_step_that_is_slower_is_undone(workshop: FakeWorkshop) -> None:
    workshop.milliseconds[True, False] = 21.0
    best, said = workshop.choose(JOINED)
    assert workshop.fusion == Fusion()
    assert workshop.times[id(best)] == 20.0
    assert said == ["torch's own norms: 20.00 ms for 2 faces, chosen", "joined: 21.00 ms for 2 faces"]


def test_the_next_step_is_tried_on_top_of_the_best_one(workshop: FakeWorkshop) -> None:
    workshop.milliseconds[True, False] = 30.0
    workshop.choose(JOINED, TRANSPOSED)
    assert workshop.fusion == Fusion(upsampling=Upsampling.TRANSPOSED)


def test_a_step_that_draws_other_pictures_is_not_used_however_fast(workshop: FakeWorkshop) -> None:
    workshop.levels[True, False] = 4
    _, said = workshop.choose(JOINED)
    assert workshop.fusion == Fusion()
    assert said[1] == "joined: not used, ValueError: its pictures are 4.0 levels of 255 off"


def test_a_step_that_rounds_otherwise_is_used(workshop: FakeWorkshop) -> None:
    workshop.levels[True, False] = 1
    workshop.choose(JOINED)
    assert workshop.fusion == Fusion(OPERATIONS)


def test_a_step_that_gives_no_numbers_is_not_used(workshop: FakeWorkshop) -> None:
    def without_numbers(best: Fusion) -> Fusion:
        workshop.usable = False
        return replace(best, operations=OPERATIONS)

    _, said = workshop.choose(("without numbers", without_numbers))
    assert workshop.fusion == Fusion()
    assert "not finite" in said[1]


def failing(error: Exception) -> Step:
    def step(best: Fusion) -> Fusion:
        raise error

    return step


@pytest.mark.parametrize(
    "error",
    [
        ImportError("No module named 'triton'"),
        RuntimeError("Failed to find C compiler\nPlease specify one"),
        PermissionError("[Errno 13] Permission denied: '/home/gpuserver/.triton'"),
        torch.OutOfMemoryError("no memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ],
)
def test_whatever_a_step_fails_with_the_next_one_is_tried(workshop: FakeWorkshop, error: Exception) -> None:
    _, said = workshop.choose(("failing", failing(error)), TRANSPOSED)
    assert workshop.fusion == Fusion(upsampling=Upsampling.TRANSPOSED)
    assert said[1] == f"failing: not used, {type(error).__name__}: {str(error).splitlines()[0]}"


def test_a_step_that_cannot_be_recorded_is_not_used(workshop: FakeWorkshop) -> None:
    def unrecorded(best: Fusion) -> Fusion:
        workshop.refusal = "operation not permitted when stream is capturing"
        return replace(best, upsampling=Upsampling.TRANSPOSED)

    _, said = workshop.choose(("unrecorded", unrecorded))
    assert workshop.fusion == Fusion()
    assert "cannot be recorded: operation not permitted" in said[1]


def test_a_step_that_costs_the_device_ends_the_warm_up(workshop: FakeWorkshop) -> None:
    workshop.device_lost = True
    with pytest.raises(RuntimeError, match="illegal memory access"):
        workshop.choose(("failing", failing(RuntimeError("CUDA error: an illegal memory access was encountered"))))


class FakeEvent:
    """Of a device that needs a millisecond for a launch, and twice as much in the first round."""

    launches = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.at: float | None = None
        self.is_over = False

    def record(self) -> None:
        self.at = FakeEvent.launches + min(FakeEvent.launches, 6)

    def synchronize(self) -> None:
        self.is_over = True

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end.is_over and self.at is not None and end.at is not None
        return end.at - self.at


def test_the_time_of_a_launch_is_the_median_of_some_rounds(workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch() -> None:
        FakeEvent.launches += 1

    monkeypatch.setattr(FakeEvent, "launches", 0)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    assert milliseconds(replace(workshop.record(), launch=launch)) == 1.0


def test_the_steps_of_the_product_lead_from_plain_to_all_of_them() -> None:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds, and for tests on Linux x86-64")
    fusion = Fusion()
    steps: list[Callable[[Fusion], Fusion]] = [step for _, step in STEPS]
    for step in steps:
        fusion = step(fusion)
    assert type(fusion.operations).__name__ == "TritonOperations"
    assert fusion.upsampling is Upsampling.INTERLEAVED
