"""Which language a text is written in, as far as its script tells."""

from __future__ import annotations

import unicodedata

# Where a script begins and ends in Unicode, with the language that is assumed for it.
_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x0370, 0x03FF, "el"),
    (0x0400, 0x052F, "ru"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0750, 0x077F, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0E00, 0x0E7F, "th"),
    (0x1100, 0x11FF, "ko"),
    (0x3040, 0x30FF, "ja"),
    (0x3400, 0x4DBF, "zh"),
    (0x4E00, 0x9FFF, "zh"),
    (0xAC00, 0xD7AF, "ko"),
    (0xF900, 0xFAFF, "zh"),
    (0x20000, 0x3134F, "zh"),
)

_CHINESE_MARKS = frozenset("。，、！？；：")

NAMES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
    "he": "Hebrew",
    "el": "Greek",
    "hi": "Hindi",
    "th": "Thai",
    "": "this script",
}


def has_words(text: str) -> bool:
    """Whether there is anything to say: a letter or a digit."""
    return any(character.isalnum() for character in text)


def is_latin(text: str) -> bool:
    """Whether the text has words and every letter of it belongs to the Latin script."""
    return has_words(text) and all(_language(character) == "en" for character in text if character.isalpha())


def has_ideographs(text: str) -> bool:
    """Whether a letter of it is a Chinese character, in whatever language."""
    return any(_language(character) == "zh" for character in text if character.isalpha())


def language_of(text: str) -> str:
    """The language code of the script that weighs most: a key of NAMES; "" for a script that is not known here.

    An ideograph or a syllable weighs as much as three letters, about what it says. Chinese characters beside kana are Japanese.
    Without letters ("3.14") the punctuation decides between Chinese and English.
    """
    weights: dict[str, int] = {}
    for character in text:
        if character.isalpha():
            language = _language(character)
            weights[language] = weights.get(language, 0) + (3 if language in {"zh", "ja", "ko"} else 1)
    if "ja" in weights:
        weights["ja"] += weights.pop("zh", 0)
    if not weights:
        return "zh" if not _CHINESE_MARKS.isdisjoint(text) else "en"
    return max(weights, key=lambda language: weights[language])


def language_name(text: str) -> str:
    """The name of the text's language in English, for messages."""
    return NAMES[language_of(text)]


def _language(letter: str) -> str:
    """The language assumed for one letter; "en" stands for the whole Latin script."""
    code = ord(letter)
    if code < 0x0250 or unicodedata.name(letter, "").startswith(("LATIN ", "FULLWIDTH LATIN ")):
        return "en"
    return next((language for first, last, language in _SCRIPTS if first <= code <= last), "")
