from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore, get_ident

import numpy as np
import pytest
import torch
from golden_data import golden_array
from torch import Tensor

from gpuserver.domain import Floats
from gpuserver.errors import DeviceFull, DeviceLost
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.whisper_ear import MAX_BATCH, WhisperEar
from gpuserver.musetalk.neural.whisper_features import log_mel
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights


class WatchedEncoder(WhisperEncoder):
    """Notes its batches; has memory for `room` windows; can be held up."""

    def __init__(self) -> None:
        super().__init__(WhisperConfig.tiny())
        self.sizes: list[int] = []
        self.room = MAX_BATCH
        self.failure: Exception | None = None
        self.entered = Event()
        self.gate = Event()
        self.gate.set()

    def forward(self, mel: Tensor) -> Tensor:
        self.entered.set()
        assert self.gate.wait(10)
        self.sizes.append(len(mel))
        if self.failure is not None:
            raise self.failure
        if len(mel) > self.room:
            raise torch.OutOfMemoryError("no memory")
        return super().forward(mel)


class SignallingDeque(deque[object]):
    """Says when something has been put in."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = Semaphore(0)

    def append(self, item: object) -> None:
        super().append(item)
        self.arrived.release()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def encoder() -> WatchedEncoder:
    return formula_weights(WatchedEncoder(), "whisper.encoder:")


def mel(seed: int = 1) -> Floats:
    return log_mel(np.random.default_rng(seed).normal(0, 0.1, 8000).astype(np.float32))


def test_the_hidden_states_are_upstreams(encoder: WatchedEncoder) -> None:
    pcm = golden_array("mel.npz", "pcm").numpy().astype(np.float32) / np.float32(32768)
    steps = WhisperEar(encoder).steps(log_mel(pcm), 0, 165)
    np.testing.assert_allclose(steps, golden_array("pipeline_tiny.npz", "hidden_first165").numpy(), atol=1e-3, rtol=0)


def test_only_the_steps_that_are_asked_for_are_given(encoder: WatchedEncoder) -> None:
    ear = WhisperEar(encoder)
    assert ear.width == 64
    assert np.array_equal(ear.steps(mel(), 7, 19), ear.steps(mel(), 0, 30)[7:19])


def ask_together(ear: WhisperEar, encoder: WatchedEncoder, seeds: tuple[int, ...]) -> list[Floats]:
    """The first one is asked alone; all others while it is being answered."""
    encoder.gate.clear()
    encoder.entered.clear()
    waiting = SignallingDeque()
    ear._waiting = waiting  # type: ignore[assignment] # the only place that knows who waits
    with ThreadPoolExecutor(len(seeds)) as threads:
        first = threads.submit(ear.steps, mel(seeds[0]), 0, 25)
        assert encoder.entered.wait(10)
        others = [threads.submit(ear.steps, mel(seed), 0, 25) for seed in seeds[1:]]
        for _ in seeds:
            assert waiting.arrived.acquire(timeout=10)
        encoder.gate.set()
        return [future.result(10) for future in (first, *others)]


def test_what_several_ask_meanwhile_is_one_batch(encoder: WatchedEncoder) -> None:
    answers = ask_together(WhisperEar(encoder), encoder, seeds=(0, 1, 2, 3))
    assert encoder.sizes == [1, 3]
    alone = [WhisperEar(encoder).steps(mel(seed), 0, 25) for seed in range(4)]
    np.testing.assert_allclose(answers, alone, atol=1e-4)


def test_without_memory_for_all_one_half_comes_after_the_other(encoder: WatchedEncoder) -> None:
    encoder.room = 1
    ear = WhisperEar(encoder)
    answers = ask_together(ear, encoder, seeds=(0, 1, 2, 3))
    assert encoder.sizes == [1, 3, 1, 2, 1, 1]
    assert ear.out_of_memory == 2
    assert all(np.isfinite(answer).all() for answer in answers)


def test_without_memory_for_one_the_caller_is_told(encoder: WatchedEncoder) -> None:
    encoder.room = 0
    ear = WhisperEar(encoder)
    with pytest.raises(DeviceFull):
        ear.steps(mel(), 0, 5)
    assert ear.out_of_memory == 1


def test_a_lost_device_is_told_to_whoever_asked(encoder: WatchedEncoder) -> None:
    ear = WhisperEar(encoder)
    encoder.failure = RuntimeError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLost):
        ear.steps(mel(), 0, 5)
    encoder.failure = None
    assert len(ear.steps(mel(), 0, 5)) == 5


def test_it_runs_on_one_thread_whoever_asks(encoder: WatchedEncoder) -> None:
    threads: list[int] = []
    encoder.register_forward_pre_hook(lambda *_: threads.append(get_ident()))
    ear = WhisperEar(encoder)
    ear.warm_up()
    with ThreadPoolExecutor(3) as askers:
        for asked in [askers.submit(ear.steps, mel(seed), 0, 5) for seed in range(3)]:
            asked.result(10)
    assert len(set(threads)) == 1
    assert threads[0] != get_ident()


def test_warming_up_runs_the_largest_batch_and_the_smallest(encoder: WatchedEncoder) -> None:
    WhisperEar(encoder).warm_up()
    assert encoder.sizes == [MAX_BATCH, 1]
