"""How the words of several languages are pronounced, as far as lips are concerned."""

from __future__ import annotations

import functools
import re
import unicodedata

from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.language import has_ideographs, has_words, is_latin
from gpuserver.pipeline.phonemes import TimedPhoneme, has_sound
from gpuserver.pipeline.pinyin import chinese_phonemes

REMEMBERED = 4096  # words

VOWELS = frozenset("aɑɐʌæeɛəɜᵊɚœøiɪɨᵻyoɔɒɤuʊAIOQWY")
# A vowel lasts longer than a consonant beside it. At 2.2, lips made from words follow those of hibari's exact durations best in width
# and rounding (correlation 0.84 and 0.86; 0.80 at 1.0; what the sound alone tells gives 0.29 and 0.22).
VOWEL_WEIGHT, CONSONANT_WEIGHT = 2.2, 1.0

# Languages that are spelt nearly as they are spoken: letters that sound otherwise, the longest first. What is not listed is
# taken as the IPA letter of the same shape, accents aside.
_SPELLINGS: dict[str, dict[str, str]] = {
    "de": {"sch": "ʃ", "ch": "x", "ck": "k", "ie": "i", "ei": "ai", "eu": "oi", "au": "au", "qu": "kv", "z": "ts", "w": "v", "v": "f",
           "ß": "s", "c": "k", "x": "ks", "y": "i"},
    "es": {"ch": "ʧ", "ll": "j", "qu": "k", "gu": "g", "h": "", "j": "x", "v": "b", "z": "θ", "c": "k", "x": "ks", "y": "i"},
    "fr": {"eau": "o", "au": "o", "ou": "u", "oi": "wa", "ai": "e", "ei": "e", "eu": "ø", "ch": "ʃ", "gn": "ɲ", "qu": "k", "ph": "f",
           "h": "", "j": "ʒ", "c": "k", "x": "ks", "y": "i", "u": "y"},
    "it": {"gli": "ʎ", "gn": "ɲ", "ch": "k", "gh": "g", "sc": "ʃ", "qu": "kw", "h": "", "z": "ts", "c": "k", "x": "ks", "y": "i"},
    "pt": {"nh": "ɲ", "lh": "ʎ", "ch": "ʃ", "qu": "k", "ou": "o", "h": "", "j": "ʒ", "ç": "s", "c": "k", "x": "ʃ", "y": "i"},
}  # fmt: skip
_SILENT_END = {"fr": re.compile(r"(?<=[^\W\d_]{2})(?:ent|[estdxpz]+)$")}


class Pronunciation:
    """Words in, phonemes out. The first word of a language loads its dictionary, up to 1 s: call from a thread."""

    def __init__(self, english: EnglishG2p):
        self._english = english
        self.phonemes = functools.lru_cache(REMEMBERED)(self._phonemes)

    def load(self) -> None:
        """Load the dictionaries, so that no sentence waits for them."""
        for word, language in (("Zlorp", "en"), ("你好", "zh")):
            self.phonemes(word, language)

    @staticmethod
    def knows(text: str, language: str) -> bool:
        """Whether every word of a text in this language (ISO 639-1) can be pronounced here."""
        if language == "zh":
            letters = "".join(letter for letter in text if letter.isalpha() and not has_ideographs(letter))
            return has_words(text) and (not letters or is_latin(letters))
        return (language == "en" or language in _SPELLINGS) and (is_latin(text) or text.isdigit())

    def word(self, word: str, language: str, seconds: float) -> list[TimedPhoneme]:
        """The phonemes of a word that lasts so many seconds: symbols of phonemes.py, vowels longer than consonants."""
        sounds = [symbol for symbol in self.phonemes(word, language) if has_sound(symbol)]
        weights = [VOWEL_WEIGHT if symbol in VOWELS else CONSONANT_WEIGHT for symbol in sounds]
        whole = sum(weights)
        return [TimedPhoneme(symbol, seconds * weight / whole) for symbol, weight in zip(sounds, weights, strict=True)]

    def _phonemes(self, word: str, language: str) -> str:
        if language in _SPELLINGS:
            return _as_spelt(word, language)
        if language == "zh" and not any(letter.isalpha() and letter.isascii() for letter in word):
            return "".join(chinese_phonemes(word))
        return self._english(word)


def _as_spelt(word: str, language: str) -> str:
    word = word.lower()
    if language in _SILENT_END:
        word = _SILENT_END[language].sub("", word)
    spellings = _SPELLINGS[language]
    pattern = "|".join(sorted(map(re.escape, spellings), key=len, reverse=True))
    heard = re.sub(pattern, lambda match: spellings[match[0]], word)
    return "".join(letter for letter in unicodedata.normalize("NFD", heard) if not unicodedata.combining(letter)).replace("g", "ɡ")
