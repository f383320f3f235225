import pytest

from gpuserver.musetalk.rendering.render_stats import Speed


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_hundred_frames_are_a_measurement() -> None:
    speed = Speed(Watch())
    speed.note(99, 1.0)
    assert speed.frames_per_second is None
    speed.note(100, 1.0)
    assert speed.frames_per_second == pytest.approx(99.5, rel=0.01)


@pytest.mark.parametrize("seed", [None, 450.0])
def test_a_minute_later_a_busy_time_of_the_machine_is_forgotten(seed: float | None) -> None:
    watch = Watch()
    speed = Speed(watch, seed)
    speed.note(5000, 1000.0)
    assert speed.frames_per_second == pytest.approx(5.0, rel=0.1)
    watch.now = 61.0
    assert speed.frames_per_second == seed


def test_what_is_measured_after_a_pause_begins_anew() -> None:
    watch = Watch()
    speed = Speed(watch)
    speed.note(5000, 1000.0)
    watch.now = 61.0
    speed.note(200, 1.0)
    assert speed.frames_per_second == pytest.approx(200)
