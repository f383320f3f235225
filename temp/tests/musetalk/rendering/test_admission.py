import pytest

from gpuserver.musetalk.rendering.admission import ASSUMED_DUTY, HEADROOM, LEAST_DUTY, Admission


class Clockwork:
    """A renderer whose speed is known, and sessions that speak a known share of their time."""

    def __init__(self, capacity: float | None):
        self._capacity = capacity
        self.mouths = 0.0
        self.now = 0.0
        self.admission = Admission(self)

    def capacity(self) -> float | None:
        return self._capacity

    def shown(self) -> int:
        return int(self.mouths)

    def pass_by(self, seconds: float, sessions: int, duty: float) -> None:
        self.admission.note(self.now, sessions)
        self.now += seconds
        self.mouths += seconds * sessions * 25 * duty
        self.admission.note(self.now, sessions)


def test_before_anything_was_measured_there_is_no_limit() -> None:
    assert Clockwork(None).admission.most_sessions() is None


def test_at_first_half_of_the_time_is_taken_to_be_speech() -> None:
    assert ASSUMED_DUTY == 0.5 and HEADROOM == 0.9
    assert Clockwork(450).admission.most_sessions() == 32  # 0.9 x 450 / (25 x 0.5)


def test_one_core_of_the_warp_engine_admits_the_default_number_of_sessions() -> None:
    most = Clockwork(150).admission.most_sessions()
    assert most is not None and most >= 10


def test_a_session_is_let_in_however_slow_the_machine_is() -> None:
    assert Clockwork(0.4).admission.most_sessions() == 1


def test_sessions_that_speak_all_the_time_leave_room_for_fewer() -> None:
    day = Clockwork(450)
    day.pass_by(3600, 10, 1.0)
    assert day.admission.most_sessions() == pytest.approx(16, abs=1)


def test_sessions_that_listen_leave_room_for_more_within_limits() -> None:
    day = Clockwork(450)
    day.pass_by(36_000, 10, 0.0)
    assert day.admission.duty == LEAST_DUTY
    assert day.admission.most_sessions() == 81


def test_duty_follows_what_sessions_do_now() -> None:
    day = Clockwork(450)
    day.pass_by(3600, 10, 0.9)
    day.pass_by(3600, 10, 0.3)
    assert day.admission.duty == pytest.approx(0.3, abs=0.06)


def test_time_without_sessions_changes_nothing() -> None:
    day = Clockwork(450)
    day.pass_by(100_000, 0, 0.0)
    assert day.admission.duty == ASSUMED_DUTY
