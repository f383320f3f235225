"""A stream of tokens becomes sentences to speak, each as soon as it is complete; the first one sooner.

Boundaries are found by stream2sentence's rules, which download nothing: decimals, abbreviations, quotes, Chinese and English
punctuation. This module adds what they leave out: lines and Markdown blocks, a bound on length, and nothing but words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from stream2sentence import SentenceSplitter  # type: ignore[import-untyped]

from gpuserver.pipeline.language import has_words
from gpuserver.pipeline.speakable import speakable

__all__ = ["LONGEST", "SentenceStream", "sentences", "speakable", "whole"]

CLAUSE_MARKS = ".?!;:,…。！？；：，"
SHORTEST_FIRST = 5  # characters; the first piece ends at the first clause longer than this
SHORTEST_CLAUSE = 40  # characters; later pieces are sentences, or clauses longer than this
LONG = 200  # characters without a boundary: cut at the next white space
LONGEST = 260  # characters: cut anywhere
LONGEST_RUN = 8  # of one mark; more of it is noise
SLICE = 8  # characters that are split in one go

# The beginning of a line, while it may still be the marker of a Markdown block. Possessive: a row of digits can be taken for numbers in
# so many ways that trying them all would take minutes.
_UNDECIDED = re.compile(r"(?:[#>*+\-•`~|=\s]|\d{1,3}[.)]?|\[[ xX]?\]?)*+")
_LONGEST_HEAD = 40
_FENCE = re.compile(r"\s*(```|~~~)")
_MARKER = re.compile(r"\s*(?:#{1,6}\s+|>\s?|[-*+•]\s+(?:\[[ xX]\]\s+)?)*")
_NUMBER = re.compile(r"(\d{1,3})[.)]\s+")


async def sentences(tokens: AsyncIterator[str]) -> AsyncIterator[str]:
    """The spoken text of a streamed answer, sentence by sentence; never empty. The caller closes `tokens`."""
    stream = SentenceStream()
    async for token in tokens:
        for start in range(0, len(token), SLICE):
            for sentence in stream.push(token[start : start + SLICE]):
                yield sentence
            await asyncio.sleep(0)  # splitting takes up to 3 ms per character (a row of "1."): other sessions go on meanwhile
    for sentence in stream.finish():
        yield sentence


async def whole(text: str) -> AsyncIterator[str]:
    """A text that is known already, as a stream of one token."""
    yield text


class SentenceStream:
    """Text goes in in pieces of any size, sentences come out; where the pieces are cut makes no difference. No I/O."""

    def __init__(self) -> None:
        self._splitter = _splitter()
        self._head: str | None = ""  # what the line began with, while undecided; None when its text is being split
        self._fence = ""  # the marker that closes the code block that is being skipped
        self._skipping = False  # the rest of this line is not spoken
        self._pending = 0  # characters since the last boundary
        self._last, self._run = "", 0  # the last character, and how often it stood there in a row

    def push(self, text: str) -> Iterator[str]:
        """Take the next piece of text; yields the sentences that it completes."""
        for part in re.split(r"(\n+)", text):
            if part.startswith("\n"):
                yield from self._end_line()
            elif part:
                yield from self._continue_line(part)

    def finish(self) -> Iterator[str]:
        """The text has ended; yields what is left."""
        yield from self._end_line()

    def _continue_line(self, text: str) -> Iterator[str]:
        if self._skipping:
            return
        if self._head is None:
            yield from self._split(text)
            return
        self._head += text
        if len(self._head) > _LONGEST_HEAD or not _UNDECIDED.fullmatch(self._head):
            yield from self._begin_line()

    def _begin_line(self) -> Iterator[str]:
        """The line's kind is known: code is skipped, block markers are dropped, the rest is split."""
        head, self._head = self._head or "", None
        fence = _FENCE.match(head)
        if self._fence:
            self._skipping = True
            if fence and fence[1] == self._fence:
                self._fence = ""
        elif fence:
            self._skipping, self._fence = True, fence[1]
        else:
            text = head[_end(_MARKER, head) :]
            yield from self._split(_NUMBER.sub(r"\1, ", text, count=1) if _NUMBER.match(text) else text)

    def _end_line(self) -> Iterator[str]:
        if self._head is not None:
            yield from self._begin_line()
        yield from self._flush()
        self._head, self._skipping = "", False

    def _split(self, text: str) -> Iterator[str]:
        for character in text:
            if self._repeats(character):
                continue
            self._splitter.add(character)
            self._pending += 1
            yield from self._speak(self._splitter.stream())
            if self._pending >= LONGEST or (self._pending >= LONG and character.isspace()):
                yield from self._flush()

    def _repeats(self, character: str) -> bool:
        """Whether a mark or an emoji stands here more often than anybody means it; a row of 100,000 dots costs seconds."""
        self._run = self._run + 1 if character == self._last else 1
        self._last = character
        return self._run > LONGEST_RUN and not character.isalnum()

    def _flush(self) -> Iterator[str]:
        yield from self._speak(self._splitter.flush())
        self._pending = 0

    def _speak(self, pieces: Iterator[str]) -> Iterator[str]:
        for piece in pieces:
            self._pending = 0
            spoken = speakable(piece)
            if has_words(spoken):
                self._splitter.minimum_first_fragment_length = SHORTEST_CLAUSE
                yield spoken


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _splitter() -> Any:  # a SentenceSplitter; the package has no types
    return SentenceSplitter(
        tokenizer="rule-based",
        language="en",  # its rules cover Chinese punctuation too
        auto_context=True,
        minimum_sentence_length=2,
        minimum_first_fragment_length=SHORTEST_FIRST,
        quick_yield_single_sentence_fragment=True,
        quick_yield_for_all_sentences=True,
        quick_yield_every_fragment=True,
        sentence_fragment_delimiters=CLAUSE_MARKS,
    )
