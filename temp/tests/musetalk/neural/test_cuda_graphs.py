"""How batches are padded, laid out and kept apart. The recorded launches are a fake: no GPU is needed, and none is tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from gpuserver.errors import DeviceLost
from gpuserver.musetalk.networks.fusion import Fusion, Upsampling
from gpuserver.musetalk.neural.cuda_graphs import GraphPainter
from gpuserver.musetalk.neural.face_painter import FaceNetwork, Order
from gpuserver.musetalk.neural.tuning import Tuning

ROW = (50, 4)


class FakeNetwork:
    """Paints each face in the level of its row. Has memory for `room` faces; remembers what it was recorded with."""

    device = torch.device("cpu")
    dtype = torch.float32
    row_shape = ROW

    def __init__(self, room: int = 8) -> None:
        self.room = room
        self.refusal: RuntimeError = torch.OutOfMemoryError("no memory")
        self.last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.fusion = Fusion()
        self.forgot = False

    def fuse(self, fusion: Fusion) -> None:
        self.fusion = fusion

    def forget(self) -> None:
        self.forgot = True

    def __call__(self, latents: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        if len(rows) > self.room:
            raise self.refusal
        pictures, usable = self.paint(rows)
        self.last = (latents, rows, pictures, usable)
        return pictures, usable

    @staticmethod
    def paint(rows: Tensor) -> tuple[Tensor, Tensor]:
        levels = rows.amax(dim=(1, 2))
        usable = torch.isfinite(levels)
        return levels.nan_to_num().to(torch.uint8)[:, None, None, None].repeat(1, 256, 256, 3), usable


class FakeGraph:
    def __init__(self) -> None:
        self.recorded: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.cuda: FakeCuda | None = None

    def replay(self) -> None:
        assert self.recorded is not None and self.cuda is not None
        _, rows, pictures, usable = self.recorded
        self.cuda.replayed.append(len(rows))
        for target, value in zip((pictures, usable), FakeNetwork.paint(rows), strict=True):
            target.copy_(value)


class FakeCuda:
    """torch.cuda as far as GraphPainter uses it; launches are done at once."""

    CUDAGraph = FakeGraph

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.replayed: list[int] = []
        self.failure: RuntimeError | None = None
        self.refused = False  # recordings
        self.trays = 0

    def Event(self, *, blocking: bool) -> FakeCuda:
        assert blocking
        self.trays += 1
        return self

    def record(self, stream: object) -> None: ...

    def synchronize(self, device: object = None) -> None:
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def graph(self, graph: FakeGraph, pool: object, stream: object, *, capture_error_mode: str) -> Iterator[None]:
        yield
        if self.refused:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")
        graph.recorded, graph.cuda = self.network.last, self

    def Stream(self, device: object) -> object:
        return SimpleNamespace(device=device)

    def empty_cache(self) -> None: ...

    def graph_pool_handle(self) -> object:
        return object()

    def device(self, device: object) -> Any:
        return nullcontext()

    def stream(self, stream: object) -> Any:
        return nullcontext()


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def cuda(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake, zeros = FakeCuda(network), torch.zeros

    def pageable_zeros(*size: Any, pin_memory: bool = False, **others: Any) -> Tensor:
        return zeros(*size, **others)

    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(torch, "zeros", pageable_zeros)
    return fake


def warm_painter(network: FakeNetwork) -> GraphPainter:
    painter = GraphPainter(cast(FaceNetwork, network), [1, 2, 4, 8])
    painter.warm_up()
    return painter


def orders(*levels: float) -> list[Order]:
    return [Order(np.zeros((8, 32, 32), np.float16), np.full(ROW, level, np.float32)) for level in levels]


def test_a_batch_is_filled_up_to_the_next_recorded_size(cuda: FakeCuda, network: FakeNetwork) -> None:
    painter = warm_painter(network)
    for count in (1, 2, 3, 5, 8):
        faces = painter.begin(orders(*range(1, count + 1)))()
        assert faces.pictures.shape == (count, 256, 256, 3)
        assert faces.pictures[:, 0, 0, 0].tolist() == list(range(1, count + 1))
    assert cuda.replayed == [1, 2, 4, 8, 8]


def test_what_is_no_number_is_not_usable(cuda: FakeCuda, network: FakeNetwork) -> None:
    assert warm_painter(network).begin(orders(1, np.nan, 3))().usable.tolist() == [True, False, True]


def test_batches_on_their_way_do_not_disturb_each_other(cuda: FakeCuda, network: FakeNetwork) -> None:
    painter = warm_painter(network)
    begun = [painter.begin(orders(level, level)) for level in (10, 20, 30)]
    levels = [wait().pictures[:, 0, 0, 0].tolist() for wait in begun]
    assert levels == [[10, 10], [20, 20], [30, 30]]


def test_a_tray_is_used_again_and_its_faces_stay_what_they_were(cuda: FakeCuda, network: FakeNetwork) -> None:
    painter = warm_painter(network)
    first = painter.begin(orders(1))()
    for level in range(2, 9):
        painter.begin(orders(level))()
    assert first.pictures[0, 0, 0, 0] == 1
    assert cuda.trays == 2


@pytest.mark.parametrize(
    "refusal",
    [torch.OutOfMemoryError("no memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")],
)
def test_sizes_for_which_there_is_no_memory_are_left_out(cuda: FakeCuda, network: FakeNetwork, refusal: RuntimeError) -> None:
    network.room, network.refusal = 3, refusal
    painter = warm_painter(network)
    assert painter.max_batch == 2
    assert painter.begin(orders(5, 6))().pictures[:, 0, 0, 0].tolist() == [5, 6]


def test_without_memory_for_one_face_it_cannot_be_warmed_up(cuda: FakeCuda, network: FakeNetwork) -> None:
    network.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        warm_painter(network)


def test_a_device_that_is_lost_meanwhile_is_noticed_when_it_is_waited_for(cuda: FakeCuda, network: FakeNetwork) -> None:
    wait = warm_painter(network).begin(orders(1))
    cuda.failure = RuntimeError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLost):
        wait()


def test_what_cannot_be_recorded_is_launched_one_by_one_and_said(cuda: FakeCuda, network: FakeNetwork) -> None:
    cuda.refused = True
    painter = warm_painter(network)
    begun = [painter.begin(orders(*levels)) for levels in ((10, 20, 30), (40,))]
    assert [wait().pictures[:, 0, 0, 0].tolist() for wait in begun] == [[10, 20, 30], [40]]
    assert cuda.replayed == []
    assert painter.remarks[0] == "batch 8: launched one by one, CUDA error: operation not permitted when stream is capturing"


def test_a_device_that_is_lost_while_recording_is_not_used_one_by_one(cuda: FakeCuda, network: FakeNetwork) -> None:
    class LostWhileRecording(FakeCuda):
        @contextmanager
        def graph(self, graph: FakeGraph, pool: object, stream: object, *, capture_error_mode: str) -> Iterator[None]:
            yield
            self.failure = RuntimeError("CUDA error: an illegal memory access was encountered")
            raise self.failure

    cuda.__class__ = LostWhileRecording
    with pytest.raises(DeviceLost):
        warm_painter(network)


def test_all_batch_sizes_are_drawn_in_the_way_that_the_largest_one_chose(cuda: FakeCuda, network: FakeNetwork) -> None:
    network.room = 4
    times = iter([10.0, 4.0])
    tuning = Tuning([("transposed", lambda best: replace(best, upsampling=Upsampling.TRANSPOSED))], lambda recording: next(times))
    painter = GraphPainter(cast(FaceNetwork, network), [1, 2, 4, 8], tuning=tuning)
    painter.warm_up()
    assert network.fusion == Fusion(upsampling=Upsampling.TRANSPOSED)
    assert network.forgot
    assert painter.remarks == ["torch's own norms: 10.00 ms for 4 faces", "transposed: 4.00 ms for 4 faces, chosen"]
    assert painter.begin(orders(5, 6))().pictures[:, 0, 0, 0].tolist() == [5, 6]
