from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from fake_network import FakeDrawing, FakeNetwork
from fakes import FakeEngine, fake_frame

from gpuserver.domain import FaceCrop, Generation, LipSyncEngine, MouthJob
from gpuserver.musetalk.renderer import Device, RenderChange, Renderer
from gpuserver.musetalk.rendering.render_worker import DEPTH


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


# ---------------------------------------------------------------- devices


class Devices:
    """A renderer with a spare engine and devices that draw everything. changes: what it announced."""

    def __init__(self, *networks: FakeNetwork):
        self.spare = FakeEngine()
        self.changes: list[RenderChange] = []
        self.renderer = Renderer(self.spare, on_change=self.changes.append)
        self.renderer.add_devices([Device(network) for network in networks], lambda job: True)
        self.renderer.start()

    def draw(self, count: int) -> list[str]:
        """Who draws so many mouths."""
        futures = [self.renderer.submit(job(0.0, index=index)) for index in range(count)]
        crops = [future.result(10) for future in futures]
        return [crop.engine if crop is not None else "nobody" for crop in crops]


class GatedNetwork(FakeNetwork):
    """Finishes nothing before the gate is opened."""

    def __init__(self) -> None:
        super().__init__(max_batch=2)
        self.gate = Event()
        self.full = Event()  # as many batches were begun as may be

    def begin(self, jobs: Sequence[MouthJob]) -> FakeDrawing:
        drawing = super().begin(jobs)
        if len(self.begun) == DEPTH:
            self.full.set()
        return drawing

    def finish(self, jobs: list[MouthJob]) -> list[FaceCrop | None]:
        assert self.gate.wait(10)
        return super().finish(jobs)


def test_the_next_batch_is_begun_while_the_one_before_is_being_finished_and_no_more() -> None:
    network = GatedNetwork()
    devices = Devices(network)
    futures = [devices.renderer.submit(job(float(index), index=index)) for index in range(10)]
    assert network.full.wait(10)
    assert [len(network.begun), len(network.finished)] == [2, 0]
    network.gate.set()
    wait(futures, 10)
    devices.renderer.close()
    assert [each.frame.index for batch in network.finished for each in batch] == list(range(10))
    assert devices.renderer.stats().drawn == 10


def test_all_devices_draw_from_one_schedule() -> None:
    first, second = GatedNetwork(), GatedNetwork()
    devices = Devices(first, second)
    futures = [devices.renderer.submit(job(0.0, index=index)) for index in range(20)]
    assert first.full.wait(10) and second.full.wait(10)
    first.gate.set()
    second.gate.set()
    wait(futures, 10)
    devices.renderer.close()
    drawn = [each.frame.index for network in (first, second) for batch in network.finished for each in batch]
    assert sorted(drawn) == list(range(20))
    assert first.finished and second.finished


@pytest.mark.parametrize("when", ["begin", "finish"])
def test_what_a_lost_device_did_not_draw_the_others_draw_and_at_last_the_spare_engine(when: str) -> None:
    first, second = GatedNetwork(), FakeNetwork()
    devices = Devices(first, second)
    if when == "begin":
        first.lost = True
    futures = [devices.renderer.submit(job(0.0, index=index)) for index in range(12)]
    if when == "finish":
        assert first.full.wait(10)
        first.lost = True
    first.gate.set()
    wait(futures, 10)
    assert {_engine(future) for future in futures} == {"network"}
    second.lost = True
    assert set(devices.draw(5)) == {"fake"}
    devices.renderer.close()
    assert [(change.engine, change.device_lost is not None) for change in devices.changes][-1] == ("fake", True)
    assert devices.renderer.stats().devices_lost == 2


@pytest.mark.parametrize("when", ["begin", "finish"])
def test_one_bad_job_harms_no_other_of_its_batch_on_a_device(when: str) -> None:
    class Picky(FakeNetwork):
        def begin(self, jobs: Sequence[MouthJob]) -> FakeDrawing:
            self.look("begin", jobs)
            return super().begin(jobs)

        def finish(self, jobs: list[MouthJob]) -> list[FaceCrop | None]:
            self.look("finish", jobs)
            return super().finish(jobs)

        def look(self, now: str, jobs: Sequence[MouthJob]) -> None:
            if now == when and any(job.frame.index == 1 for job in jobs):
                raise ValueError("a bad job")

    futures = drawn_by(Picky(), [job(1.0, index=index) for index in range(3)])
    assert [future.exception(0) is None for future in futures] == [True, False, True]


def _engine(future: Future[FaceCrop | None]) -> str:
    crop = future.result(0)
    assert crop is not None
    return crop.engine


def test_a_mouth_without_finite_numbers_is_the_sources_own_and_is_counted() -> None:
    devices = Devices(FakeNetwork())
    frame = replace(job(0.0), features=np.full((3, 2), np.nan, np.float32))
    assert devices.renderer.submit(frame).result(10) is None
    devices.renderer.close()
    assert devices.renderer.stats().not_drawn == 1


def test_a_closed_renderer_takes_no_devices() -> None:
    renderer = Renderer(FakeEngine())
    renderer.start()
    renderer.close()
    renderer.add_devices([Device(FakeNetwork())], lambda job: True)
    assert [engine.name for engine in renderer.stats().engines] == ["fake"]


def test_the_stats_count_what_was_drawn_and_how_late() -> None:
    renderer = Renderer(FakeEngine(), clock=lambda: 100.0)
    futures = [renderer.submit(job(due)) for due in (98.0, 99.5, 100.5)]
    renderer.start()
    wait(futures, 10)
    renderer.close()
    stats = renderer.stats()
    assert (stats.drawn, stats.batches, stats.batch_sizes) == (3, 1, {3: 1})
    assert (stats.late, stats.lateness_sum, stats.lateness_max) == (2, 2.5, 2.0)
