"""Long sentences are cut where a speaker would breathe."""

from __future__ import annotations

import re

_CLAUSE_END = re.compile(r"(?<=[,;:—–)])\s+")
_BREAK = re.compile(r"[\s，。；：！？、](?!.*[\s，。；：！？、])", re.DOTALL)  # the last one


def clauses(text: str, *, first: int, longest: int) -> list[str]:
    """Cut a sentence so that its first sound comes early: a first piece of about `first` characters, then pieces of up to `longest`.

    Joined, the pieces are the text. A sentence of at most `first` characters, or one without a clause, stays whole if it can.
    """
    if len(text) <= first:
        return [text]
    pieces: list[str] = []
    for clause in _clauses(text, longest):
        limit = first if len(pieces) == 1 else longest
        if pieces and len(pieces[-1]) + len(clause) <= limit:
            pieces[-1] += clause
        else:
            pieces.append(clause)
    return pieces


def bounded(text: str, longest: int) -> list[str]:
    """Cut into pieces of at most `longest` characters, after white space or Chinese punctuation where there is any."""
    pieces = []
    while len(text) > longest:
        last = _BREAK.search(text, 0, longest)
        end = last.end() if last else longest
        pieces.append(text[:end])
        text = text[end:]
    return [*pieces, text]


def _clauses(text: str, longest: int) -> list[str]:
    ends = [match.end() for match in _CLAUSE_END.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [short for part in parts if part for short in bounded(part, longest)]
