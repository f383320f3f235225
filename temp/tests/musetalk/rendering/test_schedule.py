import numpy as np
from fakes import fake_frame

from gpuserver.domain import Generation, MouthJob
from gpuserver.musetalk.rendering.schedule import Schedule

NOW = 100.0


def job(due: float, generation: Generation | None = None, index: int = 0, opening: bool = False) -> MouthJob:
    return MouthJob(fake_frame(index), np.zeros(1, np.float32), due, generation or Generation(1), opening)


def taken(schedule: Schedule, limit: int = 100, now: float = NOW) -> list[MouthJob]:
    return [pending.job for pending in schedule.take(limit, now)]


def test_the_earliest_due_come_first_whatever_session_they_belong_to() -> None:
    schedule = Schedule()
    late, soon, later = job(2.0, Generation(1)), job(1.0, Generation(2)), job(3.0, Generation(1))
    for each in (late, soon, later):
        schedule.add(each)
    assert taken(schedule, 2) == [soon, late]
    assert taken(schedule, 2) == [later]


def test_jobs_that_are_due_together_keep_their_order() -> None:
    schedule = Schedule()
    jobs = [job(1.0, index=index) for index in range(5)]
    for each in jobs:
        schedule.add(each)
    assert taken(schedule) == jobs


def test_a_turns_first_frames_go_before_what_others_draw_ahead_and_before_what_is_a_little_late() -> None:
    schedule = Schedule()
    ahead, late, first = job(NOW + 0.02), job(NOW - 0.5), job(NOW + 0.04, opening=True)
    for each in (ahead, late, first):
        schedule.add(each)
    assert taken(schedule) == [first, late, ahead]


def test_what_is_due_more_than_a_second_later_waits() -> None:
    schedule = Schedule()
    near, far = job(NOW + 1.0), job(NOW + 1.5)
    schedule.add(far)
    schedule.add(near)
    assert taken(schedule) == [near]
    assert schedule.seconds_to_next(NOW) == 0.5
    assert taken(schedule, now=NOW + 0.5) == [far]
    assert schedule.seconds_to_next(NOW) is None


def test_what_is_due_soon_after_is_drawn_along() -> None:
    schedule = Schedule()
    jobs = [job(NOW + 1.0 + 0.04 * index) for index in range(8)]
    for each in jobs:
        schedule.add(each)
    assert taken(schedule, now=NOW - 0.01) == []
    assert taken(schedule) == jobs[:6]
    assert taken(schedule, limit=1, now=NOW + 0.25) == jobs[6:7]


def test_stale_jobs_are_skipped_and_their_futures_cancelled() -> None:
    schedule = Schedule()
    stale = Generation(1)
    forgotten, wanted = schedule.add(job(1.0, stale)), schedule.add(job(2.0))
    stale.cancel()
    assert [pending.future for pending in schedule.take(4, NOW)] == [wanted]
    assert forgotten.cancelled()


def test_a_given_up_future_costs_no_drawing() -> None:
    schedule = Schedule()
    schedule.add(job(1.0)).cancel()
    assert taken(schedule) == []


def test_a_far_job_can_still_be_given_up() -> None:
    schedule = Schedule()
    future = schedule.add(job(NOW + 5))
    assert taken(schedule) == []
    assert future.cancel()


def test_what_is_put_back_comes_in_its_old_place() -> None:
    schedule = Schedule()
    jobs = [job(1.0, index=index) for index in range(4)]
    for each in jobs:
        schedule.add(each)
    schedule.put_back(schedule.take(2, NOW))
    assert taken(schedule) == jobs


def test_what_was_put_back_gets_no_mouth_when_all_is_cancelled() -> None:
    schedule = Schedule()
    future = schedule.add(job(1.0))
    schedule.put_back(schedule.take(1, NOW))
    schedule.cancel_all()
    assert future.result(0) is None


def test_everything_moves_to_another_schedule() -> None:
    here, there = Schedule(), Schedule()
    jobs = [job(2.0), job(1.0)]
    for each in jobs:
        here.add(each)
    here.give_all_to(there)
    assert (len(here), taken(there)) == (0, jobs[::-1])
