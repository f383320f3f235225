"""Long sentences are cut, and nothing of them is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuserver.pipeline.clauses import bounded, clauses


def test_a_short_sentence_stays_whole() -> None:
    assert clauses("Well, yes, of course.", first=40, longest=160) == ["Well, yes, of course."]


def test_the_first_piece_is_short_and_the_others_are_long() -> None:
    text = "Well, two and two make four, and that is all, I think, there is to know about it; nobody doubts it."
    assert clauses(text, first=40, longest=160) == ["Well, two and two make four, ", text[29:]]


def test_numbers_and_times_are_not_cut() -> None:
    text = "We paid 3,000 dollars at 7:30 in the morning and went home again"
    assert clauses(text, first=20, longest=160) == [text]


def test_chinese_is_cut_after_its_punctuation() -> None:
    assert bounded("一二三，四五六，七八", 5) == ["一二三，", "四五六，", "七八"]


@given(st.text(alphabet="ab ,;，。—x", max_size=300), st.integers(1, 50), st.integers(5, 60))
def test_joined_the_pieces_are_the_text(text: str, first: int, longest: int) -> None:
    pieces = clauses(text, first=first, longest=longest)
    assert "".join(pieces) == text
    assert all(len(piece) <= max(first, longest) for piece in pieces)
    assert "".join(bounded(text, longest)) == text
    assert all(len(piece) <= longest for piece in bounded(text, longest))
