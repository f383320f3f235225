from gpuserver.musetalk.rendering.ladder import CALM_SECONDS, DOWN_SECONDS, LATE_SECONDS, LONGEST_CALM_SECONDS, Ladder, Step

LATE, IN_TIME = LATE_SECONDS + 0.01, -0.5
FRAME = 0.04


class Day:
    """Observes a ladder every 40 ms."""

    def __init__(self, ladder: Ladder):
        self.ladder = ladder
        self.now = 0.0

    def pass_by(self, seconds: float, lateness: float) -> None:
        end = self.now + seconds - FRAME / 2
        while self.now < end:
            self.now += FRAME
            self.ladder.observe(self.now, lateness)

    def seconds_until(self, step: Step, lateness: float) -> float:
        begun = self.now
        while self.ladder.step is not step and self.now < begun + 1000:
            self.pass_by(FRAME, lateness)
        return self.now - begun


def test_lasting_lateness_goes_down_step_by_step_to_the_last() -> None:
    day = Day(Ladder())
    steps = []
    for _ in range(4):
        day.pass_by(DOWN_SECONDS + 2 * FRAME, LATE)
        steps.append(day.ladder.step)
    assert steps == [Step.HALF, Step.SPARE, Step.SPARE, Step.SPARE]


def test_a_moment_of_lateness_changes_nothing() -> None:
    day = Day(Ladder())
    for _ in range(10):
        day.pass_by(DOWN_SECONDS - FRAME, LATE)
        day.pass_by(FRAME, IN_TIME)
    assert day.ladder.step is Step.FULL


def test_a_little_lateness_is_no_overload() -> None:
    day = Day(Ladder())
    day.pass_by(5, LATE_SECONDS - 0.01)
    assert day.ladder.step is Step.FULL


def test_calm_brings_the_steps_back_one_by_one() -> None:
    day = Day(Ladder())
    day.pass_by(2, LATE)
    assert abs(day.seconds_until(Step.HALF, IN_TIME) - CALM_SECONDS) < 0.1
    assert abs(day.seconds_until(Step.FULL, IN_TIME) - CALM_SECONDS) < 0.1


def test_an_overload_that_comes_back_is_tried_again_ever_more_rarely() -> None:
    day = Day(Ladder())
    waits = []
    for _ in range(7):
        day.seconds_until(Step.HALF, LATE)
        waits.append(round(day.seconds_until(Step.FULL, IN_TIME)))
    assert waits == [10, 20, 40, 80, 160, 160, 160]
    assert max(waits) == LONGEST_CALM_SECONDS


def test_an_overload_after_a_long_calm_is_a_new_one() -> None:
    day = Day(Ladder())
    for _ in range(3):
        day.seconds_until(Step.HALF, LATE)
        day.seconds_until(Step.FULL, IN_TIME)
    day.pass_by(300, IN_TIME)
    day.seconds_until(Step.HALF, LATE)
    assert round(day.seconds_until(Step.FULL, IN_TIME)) == CALM_SECONDS


def test_without_a_spare_engine_the_last_step_is_half() -> None:
    day = Day(Ladder((Step.FULL, Step.HALF)))
    day.pass_by(10, LATE)
    assert day.ladder.step is Step.HALF


def test_other_steps_begin_at_the_best() -> None:
    day = Day(Ladder())
    day.pass_by(10, LATE)
    day.ladder.allow((Step.FULL, Step.HALF))
    assert day.ladder.step is Step.FULL


def test_time_without_any_mouth_counts_as_calm() -> None:
    day = Day(Ladder())
    day.pass_by(DOWN_SECONDS + 2 * FRAME, LATE)
    day.now += 60
    day.pass_by(FRAME, IN_TIME)
    assert day.ladder.step is Step.FULL
