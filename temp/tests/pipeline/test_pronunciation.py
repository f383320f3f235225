"""What lips do for a word: Chinese by pinyin, English by hibari's dictionary, some languages as they are spelt."""

from __future__ import annotations

import pytest

from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.phonemes import has_sound
from gpuserver.pipeline.pinyin import chinese_phonemes, syllable_phonemes
from gpuserver.pipeline.pronunciation import VOWELS, Pronunciation

# All syllables of Mandarin that differ in their final, each with one initial, and the spellings without one.
SYLLABLES = (
    "ba bo bai bei bao ban ben bang beng bi bie biao bian bin bing bu da de dou dong diu duo dui duan dun ju jue juan jun jiong qia xiang "
    "zhi chi shi ri zi ci si er a o e ai ei ao ou an en ang yi ya ye yao you yan yin yang ying yong wu wa wo wai wei wan wen wang weng yu "
    "yue yuan yun nv lve"
)


@pytest.fixture(scope="module")
def pronunciation() -> Pronunciation:
    return Pronunciation(EnglishG2p())


@pytest.mark.parametrize("syllable", SYLLABLES.split())
def test_every_syllable_of_mandarin_is_sounds_with_a_vowel(syllable: str) -> None:
    phonemes = syllable_phonemes(syllable)
    assert all(has_sound(symbol) for symbol in phonemes)
    assert not VOWELS.isdisjoint(phonemes)


@pytest.mark.parametrize(
    ("syllable", "phonemes"),
    [
        ("ma", "ma"),
        ("zhong", "ʧuŋ"),
        ("xue", "ɕuɛ"),
        ("yu", "u"),
        ("yuan", "uɛn"),
        ("wei", "uei"),
        ("you", "iou"),
        ("yi", "i"),
        ("de", "tə"),
    ],
)
def test_a_syllable_is_said_as_it_sounds(syllable: str, phonemes: str) -> None:
    assert syllable_phonemes(syllable) == phonemes


def test_digits_and_characters_are_read_and_the_rest_is_left_out() -> None:
    assert chinese_phonemes("3.5，ab！") == ["san", "tiɛn", "u"]


@pytest.mark.parametrize(
    ("text", "language", "known"),
    [
        ("Hello, world 3.14!", "en", True),
        ("你好，WebRTC 3.5。", "zh", True),
        ("你好", "en", False),
        ("こんにちは世界", "ja", False),
        ("你好 мир", "zh", False),
        ("42", "fr", True),
        ("été", "fr", True),
        ("dzień", "pl", False),
        ("?!", "zh", False),
    ],
)
def test_a_text_is_known_where_every_word_is(text: str, language: str, known: bool) -> None:
    assert Pronunciation.knows(text, language) is known


@pytest.mark.parametrize(
    ("word", "language", "phonemes"),
    [
        ("hello", "en", "həlˈO"),
        ("WebRTC", "zh", "wˌɛbˌɑɹtˌisˈi"),
        ("今天", "zh", "ʨintiɛn"),
        ("beaux", "fr", "bo"),
        ("Schule", "de", "ʃule"),
        ("niño", "es", "nino"),
        ("gnocchi", "it", "ɲokki"),
        ("São", "pt", "sao"),
    ],
)
def test_a_word_has_the_phonemes_of_its_language(pronunciation: Pronunciation, word: str, language: str, phonemes: str) -> None:
    assert pronunciation.phonemes(word, language) == phonemes


def test_a_word_fills_its_time_and_vowels_last_longer(pronunciation: Pronunciation) -> None:
    timed = pronunciation.word("妈妈", "zh", 0.64)
    assert [phoneme.symbol for phoneme in timed] == list("mama")
    assert [phoneme.seconds for phoneme in timed] == pytest.approx([0.1, 0.22, 0.1, 0.22])
    assert pronunciation.word("…", "en", 0.3) == []
