"""The real eSpeak NG: many languages, visemes that fit, one library for all sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
import pytest_asyncio

from gpuserver.domain import Speech, Viseme
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline import voice_espeak
from gpuserver.pipeline.espeak_model import timed_phonemes
from gpuserver.pipeline.phonemes import TimedPhoneme
from gpuserver.pipeline.speech_worker import SHORT
from gpuserver.pipeline.voice_espeak import EspeakVoice

GREETINGS = {
    "en": "Hello, Bob makes a map.",
    "zh": "今天我们学习加法，银行在左边。",
    "ja": "こんにちは、さようなら。",
    "ko": "안녕하세요, 여러분.",
    "ru": "Привет, мир.",
    "ar": "مرحبا بالعالم",
    "he": "שלום עולם",
    "el": "Γειά σου κόσμε",
    "hi": "नमस्ते दुनिया",
    "th": "สวัสดีครับ",
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice() -> AsyncIterator[EspeakVoice]:
    espeak = EspeakVoice()
    espeak.start()
    yield espeak
    await espeak.aclose()


async def spoken(voice: EspeakVoice, text: str, rate: float = 1.0) -> list[Speech]:
    return [piece async for piece in voice.speak(text, rate=rate)]


def shown(pieces: list[Speech]) -> list[list[Viseme]]:
    return [[timed.viseme for timed in piece.visemes or ()] for piece in pieces]


@pytest.mark.parametrize("text", GREETINGS.values(), ids=GREETINGS)
async def test_a_sentence_is_sound_with_visemes_that_cover_it(voice: EspeakVoice, text: str) -> None:
    assert voice.can_speak(text)
    pieces = await spoken(voice, text)
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        assert (piece.sample_rate, piece.voice, piece.fallback) == (22_050, "espeak", None)
        assert piece.pcm.dtype == np.int16
        assert 0.5 < piece.seconds < 6.0
        assert np.abs(piece.pcm).max() > 3000
        assert piece.visemes is not None
        assert piece.visemes[0].start == 0.0
        assert piece.visemes[-1].end == pytest.approx(piece.seconds)
        assert all(before.end == after.start for before, after in pairwise(piece.visemes))
        assert len({timed.viseme for timed in piece.visemes}) > 3


async def test_every_language_of_the_table_is_tried_here() -> None:
    assert set(voice_espeak.VOICES) == set(GREETINGS)


async def test_lips_close_on_every_m_and_b(voice: EspeakVoice) -> None:
    (piece,) = await spoken(voice, "妈妈，爸爸。")
    assert piece.visemes is not None
    assert [timed.viseme for timed in piece.visemes].count(Viseme.PP) == 4


async def test_the_rate_makes_speech_longer_or_shorter(voice: EspeakVoice) -> None:
    fast, normal, slow = [(await spoken(voice, "今天我们学习加法。", rate))[0].seconds for rate in (2.0, 1.0, 0.5)]
    assert fast < 0.7 * normal
    assert slow > 1.6 * normal


async def test_a_long_sentence_begins_with_a_short_piece_and_loses_nothing(voice: EspeakVoice) -> None:
    text = "Well, two and two make four, and that is all there is to know about it, however long anybody thinks about it."
    pieces = await spoken(voice, text)
    assert len(pieces[0].text) <= 2 * SHORT
    assert "".join(piece.text for piece in pieces) == text


@pytest.mark.parametrize("text", ["", "  ", "?!", "😀"])
async def test_text_without_words_is_silent(voice: EspeakVoice, text: str) -> None:
    assert not voice.can_speak(text)
    assert await spoken(voice, text) == []


@pytest.mark.parametrize("text", ["ქართული", "日本語です"])
async def test_a_script_it_would_spell_or_drop_is_refused(voice: EspeakVoice, text: str) -> None:
    assert not voice.can_speak(text)
    with pytest.raises(VoiceFailed, match="cannot read"):
        await spoken(voice, text)


@pytest.mark.parametrize("text", ["a\0b", "<speak>hi</speak>", "&amp; & <", "[[h@l'oU]]", "a" * 5000])
async def test_markup_and_nonsense_are_only_text(voice: EspeakVoice, text: str) -> None:
    assert await spoken(voice, text)


async def test_sessions_that_speak_at_once_do_not_mix(voice: EspeakVoice) -> None:
    alone = [await spoken(voice, text) for text in GREETINGS.values()]
    together = await asyncio.gather(*(spoken(voice, text) for text in GREETINGS.values()))
    assert [shown(pieces) for pieces in together] == [shown(pieces) for pieces in alone]


async def test_leaving_a_sentence_early_leaves_the_voice_usable(voice: EspeakVoice) -> None:
    stream = voice.speak("One, two, three, four. " * 20)
    await anext(stream)
    await stream.aclose()
    assert await spoken(voice, "Hello.")


async def test_a_library_that_cannot_be_loaded_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'espeakng_loader'")

    monkeypatch.setattr(voice_espeak, "EspeakModel", broken)
    voice = EspeakVoice()
    with pytest.raises(VoiceFailed, match="could not be loaded") as caught:
        await spoken(voice, "Hello.")
    assert caught.value.advice == "Install it with: pip install 'gpuserver[espeak]'"
    await voice.aclose()


async def test_phonemes_of_several_letters_share_their_time_and_language_marks_are_silent() -> None:
    track = timed_phonemes([(100, "tɕ"), (300, "ˈoʊ"), (500, "(en)"), (600, "")], 1000, 1000)
    assert track == [
        TimedPhoneme("", 0.1),
        TimedPhoneme("t", 0.1),
        TimedPhoneme("ɕ", 0.1),
        TimedPhoneme("o", 0.1),
        TimedPhoneme("ʊ", 0.1),
        TimedPhoneme("", 0.1),
        TimedPhoneme("", 0.4),
    ]
