"""Timed visemes become a smooth movement, and short closures are never missed."""

from __future__ import annotations

import numpy as np
import pytest

from gpuserver.domain import TimedViseme, Viseme
from gpuserver.musetalk.warp.mouth_shape import PARTS, Part
from gpuserver.musetalk.warp.visemes import LOOK_AHEAD, frame_rows

FRAME = 0.04


def timed(*parts: tuple[Viseme, float]) -> list[TimedViseme]:
    visemes, start = [], 0.0
    for viseme, seconds in parts:
        visemes.append(TimedViseme(viseme, start, start + seconds))
        start += seconds
    return visemes


@pytest.mark.parametrize("start", np.arange(0.400, 0.440, 0.005))
def test_lips_meet_on_a_p_of_30_ms_wherever_it_falls_between_frames(start: float) -> None:
    rows = frame_rows(timed((Viseme.AA, start), (Viseme.PP, 0.03), (Viseme.AA, 0.4)), 0, 20)
    around = rows[int(start / FRAME) : int((start + 0.03) / FRAME) + 1, Part.OPENING]
    assert around.min() < 0.005
    assert rows[:, Part.OPENING].max() > 0.25


def test_the_closest_frame_is_the_closed_one() -> None:
    rows = frame_rows(timed((Viseme.AA, 0.405), (Viseme.PP, 0.03), (Viseme.AA, 0.4)), 0, 20)
    assert np.argmin(rows[3:18, Part.OPENING]) + 3 == 10  # 400 to 440 ms


def test_lips_are_closed_in_a_pause_of_150_ms_and_not_in_one_of_60() -> None:
    long = frame_rows(timed((Viseme.AA, 0.4), (Viseme.SIL, 0.15), (Viseme.AA, 0.4)), 0, 23)
    short = frame_rows(timed((Viseme.AA, 0.4), (Viseme.SIL, 0.06), (Viseme.AA, 0.4)), 0, 21)
    assert long[10:14, Part.OPENING].min() < 0.005
    assert short[9:13, Part.OPENING].min() > 0.1


def test_the_mouth_moves_before_the_sound() -> None:
    rows = frame_rows(timed((Viseme.SIL, 0.4), (Viseme.OU, 0.4)), 0, 20)
    assert rows[9, Part.ROUNDING] > 0.05  # 380 ms: the lips round before the vowel sounds


def test_a_consonant_between_rounded_vowels_is_rounded_too() -> None:
    between = frame_rows(timed((Viseme.OU, 0.3), (Viseme.KK, 0.08), (Viseme.OU, 0.3)), 0, 17)[8]
    alone = frame_rows(timed((Viseme.IH, 0.3), (Viseme.KK, 0.08), (Viseme.IH, 0.3)), 0, 17)[8]
    assert between[Part.ROUNDING] > alone[Part.ROUNDING] + 0.3


def test_vowels_open_by_how_open_they_are() -> None:
    open_, middle, closed = (frame_rows(timed((v, 0.4)), 4, 1)[0, Part.OPENING] for v in (Viseme.AA, Viseme.E, Viseme.OU))
    assert open_ > middle > closed > 0.05


def test_rows_depend_on_the_look_ahead_only() -> None:
    begin = timed((Viseme.AA, 0.3), (Viseme.PP, 0.05), (Viseme.E, 0.3), (Viseme.SS, 0.3))
    known = begin[-1].end
    frames = int((known - LOOK_AHEAD) / FRAME)
    longer = [*begin, TimedViseme(Viseme.OH, known, known + 0.5)]
    np.testing.assert_allclose(frame_rows(begin, 0, frames), frame_rows(longer, 0, frames), atol=1e-6)


def test_no_visemes_is_a_mouth_at_rest() -> None:
    assert not frame_rows([], 0, 3).any()
    assert frame_rows(timed((Viseme.AA, 1.0)), 0, 0).shape == (0, PARTS)
