"""What reasoning models write between <think> and </think> is neither shown nor spoken. Sans-I/O."""

from __future__ import annotations

BEGIN, END = "<think>", "</think>"


class ReasoningFilter:
    """Takes an answer's text in pieces of any size and gives what is outside of <think>…</think>.

    A model whose prompt opens the thought for it sends only the closing tag; what came before that was shown already and cannot be
    taken back, only the tag is left out.
    """

    def __init__(self) -> None:
        self._held = ""  # may be the beginning of a tag
        self._thinking = False

    def push(self, text: str) -> str:
        """The text that is known to be said."""
        said = ""
        rest = self._held + text
        while rest:
            tag = _first(rest, (END,) if self._thinking else (BEGIN, END))
            before, found, after = rest.partition(tag) if tag else (rest, "", "")
            if not found:
                break
            said += "" if self._thinking else before
            self._thinking = tag == BEGIN
            rest = after
        held = _tail_that_may_be_a_tag(rest)
        said += "" if self._thinking else rest[: len(rest) - held]
        self._held = rest[len(rest) - held :]
        return said

    def finish(self) -> str:
        """Nothing more comes: what looked like the beginning of a tag was text."""
        rest, self._held = self._held, ""
        return "" if self._thinking else rest


def _first(text: str, tags: tuple[str, ...]) -> str | None:
    """The tag that comes first in the text."""
    places = {text.find(tag): tag for tag in tags if tag in text}
    return places[min(places)] if places else None


def _tail_that_may_be_a_tag(text: str) -> int:
    """How many characters at the end could become a tag with the next piece."""
    return max((size for tag in (BEGIN, END) for size in range(1, len(tag)) if text.endswith(tag[:size])), default=0)
