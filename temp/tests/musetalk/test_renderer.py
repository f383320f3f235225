from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from threading import Event

import numpy as np
import pytest
from fakes import FakeEngine, fake_frame

from gpuserver.domain import FaceCrop, Generation, MouthJob
from gpuserver.musetalk.renderer import Renderer, Schedule, draw


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


def test_the_earliest_due_come_first_whatever_session_they_belong_to() -> None:
    schedule = Schedule()
    late, soon, later = job(2.0, Generation(1)), job(1.0, Generation(2)), job(3.0, Generation(1))
    for each in (late, soon, later):
        schedule.add(each)
    assert [pending.job for pending in schedule.take(2)] == [soon, late]
    assert [pending.job for pending in schedule.take(2)] == [later]


def test_jobs_that_are_due_together_keep_their_order() -> None:
    schedule = Schedule()
    jobs = [job(1.0, index=index) for index in range(5)]
    for each in jobs:
        schedule.add(each)
    assert [pending.job for pending in schedule.take(5)] == jobs


def test_stale_jobs_are_skipped_and_their_futures_cancelled() -> None:
    schedule = Schedule()
    stale = Generation(1)
    forgotten = schedule.add(job(1.0, stale))
    wanted = schedule.add(job(2.0))
    stale.cancel()
    assert [pending.future for pending in schedule.take(4)] == [wanted]
    assert forgotten.cancelled()


def test_a_given_up_future_costs_no_drawing() -> None:
    schedule = Schedule()
    schedule.add(job(1.0)).cancel()
    assert schedule.take(4) == []


def test_a_failing_engine_fails_its_future() -> None:
    schedule = Schedule()
    future = schedule.add(job(1.0))
    draw(FakeEngine(fails=lambda job: True), schedule.take(1))
    assert isinstance(future.exception(), RuntimeError)


def test_one_bad_job_harms_no_other_of_its_batch() -> None:
    schedule = Schedule()
    futures = [schedule.add(job(1.0, index=index)) for index in range(3)]
    draw(FakeEngine(fails=lambda job: job.frame.index == 1), schedule.take(3))
    assert [future.exception() is None for future in futures] == [True, False, True]


def test_an_engine_that_returns_too_few_crops_fails_its_futures() -> None:
    class Forgetful(FakeEngine):
        def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
            return []

    schedule = Schedule()
    future = schedule.add(job(1.0))
    draw(Forgetful(), schedule.take(1))
    assert isinstance(future.exception(), ValueError)


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
