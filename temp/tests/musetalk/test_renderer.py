from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from threading import Event

import numpy as np
import pytest
from fakes import FakeEngine, fake_frame

from gpuserver.domain import FaceCrop, Generation, LipSyncEngine, MouthJob
from gpuserver.musetalk.renderer import Renderer


def job(due: float, generation: Generation | None = None, index: int = 0) -> MouthJob:
    return MouthJob(fake_frame(index), np.zeros(1, np.float32), due, generation or Generation(1))


class GatedEngine(FakeEngine):
    """Draws nothing before the gate is opened."""

    def __init__(self) -> None:
        super().__init__(max_batch=4)
        self.entered = Event()
        self.gate = Event()

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
        self.entered.set()
        assert self.gate.wait(10)
        return super().render(jobs)


@pytest.fixture
def gated() -> Iterator[tuple[GatedEngine, Renderer]]:
    engine = GatedEngine()
    renderer = Renderer(engine)
    renderer.start()
    yield engine, renderer
    engine.gate.set()
    renderer.close()


def drawn_by(engine: LipSyncEngine, jobs: Sequence[MouthJob]) -> list[Future[FaceCrop | None]]:
    """What becomes of jobs that a renderer has drawn to the last."""
    renderer = Renderer(engine)
    futures = [renderer.submit(each) for each in jobs]
    renderer.start()
    wait(futures, 10)
    renderer.close()
    return futures


def test_a_failing_engine_fails_its_future() -> None:
    [future] = drawn_by(FakeEngine(fails=lambda job: True), [job(1.0)])
    assert isinstance(future.exception(0), RuntimeError)


def test_one_bad_job_harms_no_other_of_its_batch() -> None:
    futures = drawn_by(FakeEngine(fails=lambda job: job.frame.index == 1), [job(1.0, index=index) for index in range(3)])
    assert [future.exception(0) is None for future in futures] == [True, False, True]


def test_an_engine_that_returns_too_few_crops_fails_its_futures() -> None:
    class Forgetful(FakeEngine):
        def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
            return []

    [future] = drawn_by(Forgetful(), [job(1.0)])
    assert isinstance(future.exception(0), ValueError)


def test_crops_are_signed_by_the_engine_that_drew_them() -> None:
    [future] = drawn_by(FakeEngine(), [job(1.0)])
    crop = future.result(0)
    assert crop is not None and crop.engine == "fake"


def test_the_thread_draws_what_waits_in_batches_of_the_most_urgent(gated: tuple[GatedEngine, Renderer]) -> None:
    engine, renderer = gated
    first = renderer.submit(job(0.0))
    assert engine.entered.wait(10)
    waiting = [renderer.submit(job(float(due), index=due)) for due in (9, 8, 7, 6, 5)]
    engine.gate.set()
    assert first.result(10) is not None
    assert waiting[0].result(10) is not None
    assert [[each.frame.index for each in batch] for batch in engine.batches] == [[0], [5, 6, 7, 8], [9]]


def test_closing_finishes_the_batch_in_work_and_cancels_what_waits(gated: tuple[GatedEngine, Renderer]) -> None:
    engine, renderer = gated
    in_work = renderer.submit(job(0.0))
    assert engine.entered.wait(10)
    waiting = renderer.submit(job(1.0))
    waiting.add_done_callback(lambda _: engine.gate.set())
    renderer.close()
    assert in_work.done() and not in_work.cancelled()
    assert waiting.cancelled()


def test_what_is_submitted_after_the_end_is_cancelled() -> None:
    renderer = Renderer(FakeEngine())
    renderer.start()
    renderer.close()
    with pytest.raises(CancelledError):
        renderer.submit(job(0.0)).result(1)


def test_a_renderer_that_was_never_started_can_be_closed() -> None:
    renderer = Renderer(FakeEngine())
    future = renderer.submit(job(0.0))
    renderer.close()
    assert future.cancelled()
