"""Every second mouth carries on the one before, whatever becomes of that one."""

from __future__ import annotations

import pytest
from fakes import fake_crop, fake_frame

from gpuserver.domain import FRAME_SECONDS, Generation, MouthJob
from gpuserver.musetalk.rendering.lending import Lending
from gpuserver.musetalk.rendering.schedule import Pending, Schedule


def taken(schedule: Schedule, generation: Generation, count: int) -> list[Pending]:
    """Frames of one answer that follow each other, as an engine gets them."""
    for index in range(count):
        schedule.add(MouthJob(fake_frame(index), fake_frame(index).landmarks, index * FRAME_SECONDS, generation))
    return schedule.take(count)


def test_every_second_mouth_is_lent_that_of_the_frame_before() -> None:
    lending, frames = Lending(), taken(Schedule(), Generation(1), 4)
    assert [lending.lends(pending) for pending in frames] == [False, True, False, True]
    crop = fake_crop(frames[0].job.frame)
    frames[0].future.set_result(crop)
    lent = frames[1].future.result(0)
    assert lent is not None and lent.y is crop.y and lent.drawn_on is frames[0].job.frame
    assert not frames[3].future.done()


def test_answers_do_not_lend_each_other_anything() -> None:
    lending, schedule = Lending(), Schedule()
    first, second = taken(schedule, Generation(1), 1), taken(schedule, Generation(2), 1)
    assert [lending.lends(pending) for pending in (*first, *second)] == [False, False]


@pytest.mark.parametrize("outcome", ["no mouth", "error"])
def test_a_mouth_that_was_not_drawn_is_not_lent_either(outcome: str) -> None:
    lending, (lender, borrower) = Lending(), taken(Schedule(), Generation(1), 2)
    assert [lending.lends(lender), lending.lends(borrower)] == [False, True]
    if outcome == "error":
        lender.future.set_exception(ValueError("bad"))
        assert isinstance(borrower.future.exception(0), ValueError)
    else:
        lender.future.set_result(None)
        assert borrower.future.result(0) is None


def test_a_mouth_that_comes_again_from_a_lost_device_does_not_wait_for_itself() -> None:
    lending, schedule = Lending(), Schedule()
    [pending] = taken(schedule, Generation(1), 1)
    assert not lending.lends(pending)
    schedule.put_back([pending])
    [again] = schedule.take(1)
    assert not lending.lends(again)
