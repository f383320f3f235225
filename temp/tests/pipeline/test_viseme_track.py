"""Announced words become visemes that cover the sound, however it is cut, and sound waits for its words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.domain import Viseme
from gpuserver.pipeline.announced_speech import AnnouncedSpeech
from gpuserver.pipeline.phonemes import TimedPhoneme
from gpuserver.pipeline.viseme_track import UNKNOWN, VisemeTrack

RATE = 24_000
PA = [TimedPhoneme("p", 0.1), TimedPhoneme("ɑ", 0.2)]


def sound(seconds: float) -> np.ndarray:
    return np.ones(round(seconds * RATE), np.int16)


def shown(track: VisemeTrack, seconds: float, *, ending: bool = False) -> list[tuple[Viseme, float, float]]:
    return [(timed.viseme, round(timed.start, 6), round(timed.end, 6)) for timed in track.take(seconds, ending=ending)]


def test_the_lips_rest_before_a_word_and_after_the_last() -> None:
    track = VisemeTrack()
    track.announce(0.1, PA)
    assert shown(track, 0.5, ending=True) == [
        (Viseme.SIL, 0.0, 0.1),
        (Viseme.PP, 0.1, 0.2),
        (Viseme.AA, 0.2, 0.4),
        (Viseme.SIL, 0.4, 0.5),
    ]


def test_a_gap_between_words_lengthens_the_sound_and_a_pause_closes_the_lips() -> None:
    track = VisemeTrack()
    track.announce(0.0, PA)
    track.announce(0.35, PA)
    track.announce(0.95, PA)
    assert shown(track, 1.25) == [
        (Viseme.PP, 0.0, 0.1),
        (Viseme.AA, 0.1, 0.35),
        (Viseme.PP, 0.35, 0.45),
        (Viseme.AA, 0.45, 0.65),
        (Viseme.SIL, 0.65, 0.95),
        (Viseme.PP, 0.95, 1.05),
        (Viseme.AA, 1.05, 1.25),
    ]


def test_words_that_overlap_do_not_push_each_other_back() -> None:
    track = VisemeTrack()
    for number in range(10):
        track.announce(number * 0.29, PA)
    pressed = [start for viseme, start, _ in shown(track, 3.0, ending=True) if viseme is Viseme.PP]
    assert pressed == pytest.approx([number * 0.29 for number in range(10)])


def test_a_viseme_is_cut_where_a_piece_ends() -> None:
    track = VisemeTrack()
    track.announce(0.0, PA)
    assert shown(track, 0.05) == [(Viseme.PP, 0.0, 0.05)]
    assert shown(track, 0.25) == [(Viseme.PP, 0.0, 0.05), (Viseme.AA, 0.05, 0.25)]


def test_sound_that_was_not_announced_opens_the_lips_and_a_late_word_shows_what_is_left_of_it() -> None:
    track = VisemeTrack()
    assert shown(track, 0.15) == [(UNKNOWN, 0.0, 0.15)]
    track.announce(0.0, PA)
    assert shown(track, 0.15) == [(Viseme.AA, 0.0, 0.15)]


WORDS = st.lists(st.tuples(st.floats(0, 3), st.lists(st.tuples(st.sampled_from("pɑtiʃw"), st.floats(0.01, 0.3)), max_size=4)), max_size=6)


@given(WORDS, st.lists(st.floats(0.001, 0.7), min_size=1, max_size=12), st.integers(0, 6))
def test_whatever_is_announced_the_visemes_cover_the_sound(
    words: list[tuple[float, list[tuple[str, float]]]], cuts: list[float], early: int
) -> None:
    track = VisemeTrack()
    for start, phonemes in words[:early]:
        track.announce(start, [TimedPhoneme(*phoneme) for phoneme in phonemes])
    for number, seconds in enumerate(cuts):
        if number == 1:
            for start, phonemes in words[early:]:
                track.announce(start, [TimedPhoneme(*phoneme) for phoneme in phonemes])
        piece = track.take(seconds)
        assert piece[0].start == pytest.approx(0.0, abs=1e-9)
        assert piece[-1].end == pytest.approx(seconds, abs=1e-9)
        assert all(before.end == pytest.approx(after.start, abs=1e-9) for before, after in pairwise(piece))
        assert all(timed.end >= timed.start for timed in piece)


# ---------------------------------------------------------------- sound that waits for its words


def test_sound_waits_for_the_word_that_sounds_in_it() -> None:
    speech = AnnouncedSpeech(with_lips=True)
    speech.add_sound(sound(0.4), RATE)
    assert speech.take() is None
    speech.announce(0.1, [TimedPhoneme("p", 0.2)])
    piece = speech.take()
    assert piece is not None
    assert len(piece.pcm) == pytest.approx(0.3 * RATE, abs=1)
    assert speech.holds
    speech.complete()
    rest = speech.take()
    assert rest is not None
    assert rest.visemes is not None
    assert rest.visemes[-1].viseme is Viseme.SIL
    assert len(piece.pcm) + len(rest.pcm) == 0.4 * RATE


def test_the_first_piece_decides_for_the_whole_sentence() -> None:
    driven_by_sound = AnnouncedSpeech(with_lips=True)
    driven_by_sound.add_sound(sound(0.2), RATE)
    first = driven_by_sound.take(waited_enough=True)
    driven_by_sound.announce(0.2, PA)
    driven_by_sound.add_sound(sound(0.3), RATE)
    second = driven_by_sound.take()
    assert first is not None
    assert second is not None
    assert first.visemes is second.visemes is None

    driven_by_words = AnnouncedSpeech(with_lips=True)
    driven_by_words.announce(0.0, PA)
    driven_by_words.add_sound(sound(0.3), RATE)
    assert driven_by_words.take() is not None
    driven_by_words.add_sound(sound(0.3), RATE)
    late = driven_by_words.take(waited_enough=True)
    assert late is not None
    assert late.visemes is not None
    assert [timed.viseme for timed in late.visemes] == [UNKNOWN]


def test_without_lips_nothing_is_held_back() -> None:
    speech = AnnouncedSpeech(with_lips=False)
    speech.announce(0.0, PA)
    speech.add_sound(sound(0.1), RATE)
    piece = speech.take()
    assert piece is not None
    assert piece.visemes is None
    assert not speech.holds
