"""Phonemes become visemes: diphthongs move, gaps close the lips, and nothing of the time is lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.domain import TimedViseme, Viseme
from gpuserver.pipeline.phonemes import TimedPhoneme, has_sound, visemes

SYMBOLS = "pbmfvθðtdkɡszʃʧnlɹɑæʌɛəɪiɔuʊwjAIOQWYˈˌː ,.?!"


def shown(*track: tuple[str, float]) -> list[tuple[Viseme, float, float]]:
    return [(timed.viseme, round(timed.start, 3), round(timed.end, 3)) for timed in visemes(TimedPhoneme(*item) for item in track)]


def test_lips_close_on_p_b_and_m() -> None:
    for symbol in "pbm":
        assert shown((symbol, 0.05)) == [(Viseme.PP, 0.0, 0.05)]


@pytest.mark.parametrize(
    ("diphthong", "first", "second"),
    [
        ("A", Viseme.E, Viseme.IH),
        ("I", Viseme.AA, Viseme.IH),
        ("W", Viseme.AA, Viseme.OU),
        ("O", Viseme.OH, Viseme.OU),
        ("Y", Viseme.OH, Viseme.IH),
    ],
)
def test_a_diphthong_is_two_visemes_of_half_its_length(diphthong: str, first: Viseme, second: Viseme) -> None:
    assert shown((diphthong, 0.2)) == [(first, 0.0, 0.1), (second, 0.1, 0.2)]


def test_a_stress_mark_lengthens_the_sound_that_follows() -> None:
    assert shown(("b", 0.05), ("ˈ", 0.05), ("ɑ", 0.1)) == [(Viseme.PP, 0.0, 0.05), (Viseme.AA, 0.05, 0.2)]


def test_a_length_mark_lengthens_the_sound_before() -> None:
    assert shown(("ɑ", 0.1), ("ː", 0.05), ("b", 0.05)) == [(Viseme.AA, 0.0, 0.15), (Viseme.PP, 0.15, 0.2)]


def test_the_space_between_two_words_is_no_pause() -> None:
    assert shown(("ɑ", 0.1), (" ", 0.05), ("b", 0.05)) == [(Viseme.AA, 0.0, 0.15), (Viseme.PP, 0.15, 0.2)]


def test_a_comma_is_a_pause() -> None:
    track = shown(("ɑ", 0.1), (",", 0.1), (" ", 0.05), ("b", 0.05))
    assert track == [(Viseme.AA, 0.0, 0.1), (Viseme.SIL, 0.1, 0.25), (Viseme.PP, 0.25, 0.3)]


def test_equal_neighbours_are_one_viseme() -> None:
    assert shown(("s", 0.1), ("z", 0.1)) == [(Viseme.SS, 0.0, 0.2)]


@given(st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 20))))
def test_visemes_touch_and_cover_the_whole_time(track: list[tuple[str, int]]) -> None:
    timed = visemes(TimedPhoneme(symbol, steps * 0.025) for symbol, steps in track)
    total = sum(steps for _, steps in track) * 0.025
    assert (timed[-1].end if timed else 0.0) == pytest.approx(total)
    assert all(before.end == after.start for before, after in pairwise(timed))
    assert not timed or timed[0].start == 0.0
    assert all(isinstance(item, TimedViseme) and item.end >= item.start for item in timed)


def test_punctuation_alone_has_no_sound() -> None:
    assert not has_sound("?! … , ˈ")
    assert has_sound("həlˈO.")


def test_every_sound_of_hibari_has_a_viseme() -> None:
    from hibari.tts import Hibari  # type: ignore[import-untyped]

    marks = set(';:,.!?—…"()“” ˈˌː̃ʰʲ↓→↗↘')
    assert {symbol for symbol in Hibari().vocab if symbol not in marks and not has_sound(symbol)} == set()
