"""A character outside of the basic plane, such as an emoji, may arrive as two halves. Sans-I/O."""

from __future__ import annotations

REPLACEMENT = "\ufffd"
_FIRST_HALF = ("\ud800", "\udbff")  # high surrogates; low ones follow them, https://www.unicode.org/versions/Unicode16.0.0/core-spec/


class WholeCharacters:
    """Takes an answer's text in pieces and joins what was cut between the halves of a character.

    Servers written in JavaScript count in UTF-16 and send each half as JSON's \\ud83d. A half without the other becomes U+FFFD, because
    it can be written to no WebSocket.
    """

    def __init__(self) -> None:
        self._held = ""  # a first half

    def push(self, text: str) -> str:
        """The characters that are whole now."""
        text = self._held + text
        self._held = text[-1:] if _FIRST_HALF[0] <= text[-1:] <= _FIRST_HALF[1] else ""
        return text[: len(text) - len(self._held)].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def finish(self) -> str:
        """Nothing more comes."""
        rest, self._held = self._held, ""
        return REPLACEMENT if rest else ""
