"""Chinese characters to phonemes, by way of pinyin (PyPI pypinyin)."""

from __future__ import annotations

import re

_INITIALS = {
    "b": "p", "p": "p", "m": "m", "f": "f", "d": "t", "t": "t", "n": "n", "l": "l", "g": "k", "k": "k", "h": "x", "j": "ʨ", "q": "ʨ",
    "x": "ɕ", "zh": "ʧ", "ch": "ʧ", "sh": "ʃ", "r": "ɻ", "z": "ʦ", "c": "ʦ", "s": "s",
}  # fmt: skip
# Finals that are not said as they are spelt; ü is "v". The lips are round for u and ü alike.
_FINALS = {
    "e": "ə", "o": "wo", "ai": "ai", "ei": "ei", "ao": "au", "ou": "ou", "er": "aɻ", "en": "ən", "eng": "əŋ", "ong": "uŋ",
    "ie": "iɛ", "iao": "iau", "iu": "iou", "ian": "iɛn", "in": "in", "ing": "iŋ", "iong": "iuŋ",
    "uo": "uo", "uai": "uai", "ui": "uei", "un": "uən", "v": "u", "ve": "uɛ", "van": "uɛn", "vn": "un",
}  # fmt: skip
# Syllables without an initial are spelt with y and w instead of i and u.
_SPELLINGS = (
    (re.compile(r"^yu"), "v"), (re.compile(r"^yi"), "i"), (re.compile(r"^you$"), "iu"), (re.compile(r"^y"), "i"),
    (re.compile(r"^wu"), "u"), (re.compile(r"^wei$"), "ui"), (re.compile(r"^wen$"), "un"), (re.compile(r"^w"), "u"),
    (re.compile(r"^([jqx])u"), r"\1v"),
)  # fmt: skip
_SYLLABLE = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcs])?(.*)")
_DIGITS = str.maketrans("0123456789.%", "零一二三四五六七八九点百")


def chinese_phonemes(text: str) -> list[str]:
    """The phonemes of each syllable, in IPA letters; nothing for what is no Chinese character or digit. The first call takes 0.4 s."""
    from pypinyin import lazy_pinyin

    syllables = lazy_pinyin(text.translate(_DIGITS), v_to_u=False, errors="ignore")
    return [syllable_phonemes(syllable) for syllable in syllables]


def syllable_phonemes(syllable: str) -> str:
    """The phonemes of "zhong" are "ʧuŋ". Letters that are no pinyin are kept."""
    for spelling, meaning in _SPELLINGS:
        syllable, changed = spelling.subn(meaning, syllable, count=1)
        if changed:
            break
    match = _SYLLABLE.fullmatch(syllable)
    initial, final = (match[1] or "", match[2]) if match else ("", syllable)
    spoken = _FINALS.get(final, final.replace("ng", "ŋ").replace("v", "u"))
    return _INITIALS.get(initial, "") + spoken
