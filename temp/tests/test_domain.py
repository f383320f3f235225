"""The nouns: the loop, generations, traces."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.domain import FRAME_SECONDS, SAMPLES_PER_FRAME, Box, Generation, Speech, Trace, loop_index


def test_a_frame_lasts_40_ms_in_picture_and_in_sound() -> None:
    assert pytest.approx(0.040) == FRAME_SECONDS
    assert SAMPLES_PER_FRAME == 1920


def test_the_loop_plays_forth_and_back_without_showing_an_end_twice() -> None:
    assert [loop_index(position, 4) for position in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]


@given(position=st.integers(0, 10**9), count=st.integers(1, 2000))
def test_the_loop_never_jumps(position: int, count: int) -> None:
    here, there = loop_index(position, count), loop_index(position + 1, count)
    assert 0 <= here < count
    assert abs(here - there) == (0 if count == 1 else 1)


def test_a_box_is_frozen_and_knows_its_size() -> None:
    box = Box(left=2, top=4, right=12, bottom=10)
    assert (box.width, box.height) == (10, 6)
    with pytest.raises(FrozenInstanceError):
        box.left = 0  # type: ignore[misc]


def test_speech_knows_its_length_at_its_own_rate() -> None:
    assert Speech(np.zeros(12_000, np.int16), 24_000, "hm").seconds == 0.5


def test_a_cancelled_generation_stays_cancelled() -> None:
    generation = Generation(3)
    assert not generation.cancelled
    generation.cancel()
    generation.cancel()
    assert generation.cancelled


def test_a_trace_keeps_the_first_time_of_a_stage_in_milliseconds() -> None:
    trace = Trace(generation=1, asked_at=10.0)
    assert trace.mark("first_token", 10.0123)
    assert not trace.mark("first_token", 11.0)
    assert trace.marks == {"first_token": 12.3}
    with pytest.raises(KeyError):
        trace.mark("first_sneeze", 10.0)
