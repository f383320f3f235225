"""Characters that arrive in halves are put together, and what stays a half can be written down all the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.pipeline.whole_characters import WholeCharacters


def joined(pieces: list[str]) -> list[str]:
    characters = WholeCharacters()
    return [*map(characters.push, pieces), characters.finish()]


def test_the_halves_of_an_emoji_become_one_character_with_the_second() -> None:
    assert joined(["Yes \ud83d", "\ude00!"]) == ["Yes ", "😀!", ""]


@pytest.mark.parametrize(("pieces", "text"), [(["\ud83d", "a"], "\ufffda"), (["\ude00b"], "\ufffdb"), (["c\ud83d"], "c\ufffd")])
def test_half_a_character_is_replaced(pieces: list[str], text: str) -> None:
    assert "".join(joined(pieces)) == text


@given(st.text())
def test_text_of_whole_characters_passes_as_it_is_however_it_is_cut(text: str) -> None:
    units = text.encode("utf-16-le")
    halves = [units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)]
    assert "".join(joined(halves)) == text


@given(st.lists(st.text(st.characters())))
def test_anything_can_be_sent_afterwards(pieces: list[str]) -> None:
    "".join(joined(pieces)).encode()
