"""Reasoning is left out, however the text is cut into tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.pipeline.reasoning import BEGIN, END, ReasoningFilter


def said(*pieces: str) -> str:
    reasoning = ReasoningFilter()
    return "".join([*(reasoning.push(piece) for piece in pieces), reasoning.finish()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two.", "Two."),
        ("<think>Hm.</think>Two.", "Two."),
        ("One. <think>Hm.</think>Two.", "One. Two."),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>never ends", ""),
        ("Hm.</think>Two.", "Hm.Two."),
        ("a < b and <thin ice>", "a < b and <thin ice>"),
        ("ends with <thi", "ends with <thi"),
        ("<think></think>", ""),
    ],
)
def test_what_is_inside_the_tags_is_left_out_at_every_cut(text: str, expected: str) -> None:
    assert said(text) == expected
    assert said(*text) == expected
    assert all(said(text[:cut], text[cut:]) == expected for cut in range(len(text)))


def test_plain_text_is_not_held_back() -> None:
    reasoning = ReasoningFilter()
    assert reasoning.push("Two and ") == "Two and "
    assert reasoning.push("a <") == "a "
    assert reasoning.push(" b") == "< b"


@given(st.lists(st.sampled_from(["a", "b ", BEGIN, END, "<", "think", ">", "</"])), st.data())
def test_the_cuts_make_no_difference(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert said(*pieces) == said(text)
