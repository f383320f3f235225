"""Sentences out of a stream: early, whole, bounded, and the same however the stream is cut."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.pipeline.sentences import LONGEST, SentenceStream, sentences

CHINESE = "今天我们学习加法，二加二等于四，三加三等于六，大家都听懂了吗？听懂了。"


async def stream(parts: Sequence[str]) -> AsyncIterator[str]:
    for part in parts:
        yield part


def streamed(text: str, cuts: Sequence[int]) -> list[str]:
    """The sentences of `text`, given in pieces of `cuts` characters, over and over."""
    splitter, start, turn = SentenceStream(), 0, 0
    out: list[str] = []
    while start < len(text):
        size = cuts[turn % len(cuts)]
        out += splitter.push(text[start : start + size])
        start, turn = start + size, turn + 1
    return [*out, *splitter.finish()]


def whole(text: str) -> list[str]:
    stream = SentenceStream()
    return [*stream.push(text), *stream.finish()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("It costs 3.14 dollars. Really!", ["It costs 3.14 dollars.", "Really!"]),
        (
            "Dr. Smith met Mr. Jones, e.g. in the U.S. embassy. They left.",
            ["Dr. Smith met Mr. Jones,", "e.g. in the U.S. embassy.", "They left."],
        ),
        ("What?! No... Yes.", ["What?!", "No...", "Yes."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("At 7:30 we pay $3,000. Good.", ["At 7:30 we pay $3,000.", "Good."]),
        ("你好！今天学加法。好吗？", ["你好！", "今天学加法。", "好吗？"]),
        ("圆周率是3.14。对吗？", ["圆周率是3.14。", "对吗？"]),
        ("“好。”他说。", ["“好。”", "他说。"]),
        ("I say 你好！ Then we go.", ["I say 你好！", "Then we go."]),
        ("no punctuation at all", ["no punctuation at all"]),
    ],
)
def test_a_text_is_cut_where_its_sentences_end(text: str, expected: list[str]) -> None:
    assert whole(text) == expected


def test_the_first_piece_ends_at_the_first_clause_and_comes_before_the_rest() -> None:
    splitter = SentenceStream()
    assert list(splitter.push("今天我们学习加法，二加")) == ["今天我们学习加法，"]
    assert list(splitter.push("二等于四，三加三等于六。")) == []


def test_later_sentences_are_not_cut_at_every_comma() -> None:
    assert whole("Yes. First one, then two, then three.") == ["Yes.", "First one, then two, then three."]


def test_a_sentence_is_ready_as_soon_as_the_next_one_begins() -> None:
    splitter = SentenceStream()
    assert list(splitter.push("Hello there. N")) == ["Hello there."]


def test_markdown_blocks_become_lines_to_say() -> None:
    text = "# Addition\n\n1. First, **two**.\n2) Then _two_.\n- [x] done\n> quoted\n\n---\nEnd"
    assert whole(text) == ["Addition", "1, First, two.", "2, Then two.", "done", "quoted", "End"]


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_code_blocks_are_not_spoken(fence: str) -> None:
    assert whole(f"Look:\n{fence}python\nprint('x')\n# a comment.\n{fence}\nDone.") == ["Look:", "Done."]


def test_a_code_block_that_never_ends_is_not_spoken() -> None:
    assert whole("Look:\n```\nx = 1\ny = 2") == ["Look:"]


def test_emphasis_that_spans_sentences_leaves_no_stars() -> None:
    assert whole("This is **bold. Really** bold.") == ["This is bold.", "Really bold."]


def test_a_table_is_read_cell_by_cell() -> None:
    assert whole("| a | b |\n|---|---|\n| 1 | 2 |\n") == ["a, b", "1, 2"]


@pytest.mark.parametrize("text", ["", "   \n\n", "😀 👍🏽", "!!! ... —", "---\n***\n", "```\ncode\n```"])
def test_text_without_words_yields_nothing(text: str) -> None:
    assert whole(text) == []


@pytest.mark.parametrize("text", ["x" * 100_000, "词" * 20_000, "word " * 20_000])
def test_text_without_punctuation_is_bounded(text: str) -> None:
    pieces = whole(text)
    assert max(map(len, pieces)) <= LONGEST
    assert "".join("".join(pieces).split()) == "".join(text.split())


async def test_a_stream_yields_what_the_whole_text_yields() -> None:
    tokens = [CHINESE[start : start + 2] for start in range(0, len(CHINESE), 2)]
    assert [sentence async for sentence in sentences(stream(tokens))] == whole(CHINESE)


async def test_a_piece_is_yielded_before_the_next_token_is_asked_for() -> None:
    asked = 0

    async def tokens() -> AsyncIterator[str]:
        nonlocal asked
        for token in ("Hello ", "there. ", "And ", "so ", "on."):
            asked += 1
            yield token

    assert await anext(sentences(tokens())) == "Hello there."
    assert asked == 3


SOURCE = st.text(alphabet="ab1 .,?!。，？！：;:'\"()\n你好*_`#-[]<>|~3😀", max_size=200)


@given(SOURCE, st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_it_makes_no_difference_where_the_stream_is_cut(text: str, cuts: list[int]) -> None:
    assert streamed(text, cuts) == whole(text)


@given(st.text(alphabet="abc123 .,?!。，？！：;'()你好吗", max_size=400))
def test_no_letter_and_no_digit_of_plain_text_is_lost(text: str) -> None:
    said = [character for piece in whole(text) for character in piece if character.isalnum()]
    assert said == [character for character in text if character.isalnum()]


@given(st.text(max_size=300))
def test_any_text_gives_bounded_pieces_with_words(text: str) -> None:
    for piece in whole(text):
        assert any(character.isalnum() for character in piece)
        assert piece == piece.strip()
        assert "\n" not in piece


def test_importing_it_loads_no_language_toolkit() -> None:
    code = "import sys, gpuserver.pipeline.sentences; print(sorted({'nltk', 'stanza', 'torch', 'spacy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


async def test_a_long_text_lets_others_work_while_it_is_split() -> None:
    turns_of_others, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns_of_others
        while not done.is_set():
            turns_of_others += 1
            await asyncio.sleep(0)

    text = "Some words without an end " * 40
    task = asyncio.create_task(others())
    pieces = [piece async for piece in sentences(stream([text]))]
    done.set()
    await task
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert turns_of_others >= len(text) // 8


@pytest.mark.parametrize("noise", ["." * 100_000, "!" * 100_000, "\n" * 100_000, "😀" * 100_000], ids=["dots", "marks", "lines", "emoji"])
def test_endless_rows_of_one_mark_cost_nothing_and_say_nothing(noise: str) -> None:
    stream = SentenceStream()
    assert [*stream.push("Yes. " + noise + " No."), *stream.finish()] == ["Yes.", "No."]


@pytest.mark.parametrize("number", ["1" * 31, "1. " * 20, "[ " * 30, "12 " * 13], ids=["digits", "items", "boxes", "numbers"])
def test_a_line_that_begins_with_many_digits_is_split_at_once(number: str) -> None:
    """Not in a time that doubles with every digit: such a line would hold up every session for minutes."""
    assert "".join(whole(f"{number}apples.")).endswith("apples.")
