"""The language of a text by its script."""

from __future__ import annotations

import pytest

from gpuserver.pipeline.language import has_words, is_latin, language_name, language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello", "en"), ("naïve café", "en"), ("你好", "zh"), ("你好 hello", "zh"), ("The word 你 is a Chinese character", "en"),
        ("こんにちは世界", "ja"), ("日本語です", "ja"), ("안녕하세요", "ko"),
        ("Привет", "ru"), ("مرحبا", "ar"), ("שלום", "he"), ("γειά", "el"),
        ("नमस्ते", "hi"), ("สวัสดี", "th"), ("ქართული", ""), ("3.14", "en"), ("3.14。", "zh"), ("", "en"), ("ＡＢＣ", "en"), ("𠀀", "zh"),
    ],
)  # fmt: skip
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "latin"), [("Hello!", True), ("42", True), ("résumé", True), ("Hi 你", False), ("", False), ("?!", False)]
)
def test_latin_text_has_words_and_no_other_letters(text: str, latin: bool) -> None:
    assert is_latin(text) is latin


@pytest.mark.parametrize(("text", "words"), [("a", True), ("7", True), ("你", True), ("?!…", False), ("😀", False), ("  ", False)])
def test_a_letter_or_a_digit_is_something_to_say(text: str, words: bool) -> None:
    assert has_words(text) is words


def test_languages_have_names_for_messages() -> None:
    assert language_name("你好") == "Chinese"
    assert language_name("ქართული") == "this script"
