"""What a voice should say of a sentence written in Markdown: no markers, no tags, no emoji, no long addresses."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import emoji
from markdown_it import MarkdownIt
from markdown_it.token import Token

# "2*3*4" is a product, not emphasis; voices read the sign aloud.
_PRODUCT = re.compile(r"(?<=[\d)])[ ]?\*[ ]?(?=[\w(])|(?<=\w)[ ]?\*[ ]?(?=[\d(])|(?<=\b[a-zA-Z])\*(?=[a-zA-Z]\b)")
_POWER = re.compile(r"(?:(?<=\d)|(?<=\b[a-zA-Z]))[ ]?\*\*[ ]?(?=\d)")
_URL = re.compile(r"(?:https?|ftp)://(?:www\.)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)(?:[:/?#][A-Za-z0-9\-._~:/?#@!$&'*+;=%]*)?(?<![.,;:!?'])")

# Emphasis that began in the sentence before or ends in the one after: a marker with a word on one side only.
_STRAY_MARKER = re.compile(r"\*{2,}|~~|`+|(?<!\S)(?:\*|_{1,3})(?=\S)|(?<=\S)(?:\*|_{1,3})(?!\w)")
_TABLE_CELL = re.compile(r"[ ]*\|[ ]*")
_JOINERS = re.compile("[\u200b-\u200f\u202a-\u202e\u2060\ufe0e\ufe0f\ufeff]")  # what invisible characters emoji leave behind
_TAG = re.compile(
    r"<!--|</?(?:a|abbr|audio|b|big|blockquote|br|break|center|cite|code|del|details|div|dd|dl|dt|em|emphasis|font|h[1-6]|hr|i|img|ins"
    r"|kbd|lang|li|mark|math|mstts:[\w-]+|ol|p|paragraph|phoneme|pre|prosody|q|s|say-as|script|sentence|small|span|speak|strike|strong|style"
    r"|sub|sum|summary|sup|svg|table|tbody|td|tfoot|th|thead|think|tr|u|ul|video|voice|w)[\s/>]",
    re.IGNORECASE,
)


def speakable(text: str) -> str:
    """The words of one sentence or line, without Markdown, HTML or SSML tags and emoji. May be empty.

    A product keeps its sign ("2*3" is "2×3"); an address is its host name; a tag that no document has stays, for it is "x<y".
    """
    text = _PRODUCT.sub("×", _POWER.sub("^", text))
    tokens = _markdown().parseInline(text)[0].children or []
    text = _STRAY_MARKER.sub("", "".join(_words(tokens)))
    text = _TABLE_CELL.sub(", ", text.strip(" |"))
    text = _JOINERS.sub("", emoji.replace_emoji(text, ""))
    return " ".join(_URL.sub(r"\1", text).split())


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable("strikethrough")


def _words(tokens: Sequence[Token]) -> list[str]:
    """The text of inline tokens; an image is its description."""
    words = []
    for token in tokens:
        if token.type in {"text", "code_inline", "image"}:
            words.append(token.content)
        elif token.type in {"softbreak", "hardbreak"} or token.content.lower().startswith("<br"):
            words.append(" ")
        elif token.type == "html_inline" and not _TAG.match(token.content):
            words.append(token.content)
    return words
