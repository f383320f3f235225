"""The real hibari voice: sound, visemes that fit it, an event loop that stays free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
import pytest_asyncio

from gpuserver.domain import Speech, TimedViseme, Viseme
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline import voice_hibari
from gpuserver.pipeline.speech_worker import SENTENCE_PAUSE, SHORT
from gpuserver.pipeline.voice_hibari import HibariVoice

VOWELS = {Viseme.AA, Viseme.E, Viseme.IH, Viseme.OH, Viseme.OU}
LONG_SENTENCE = "Well, two and two make four, and that is all there is to know about it, however long anybody thinks about the question."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice() -> AsyncIterator[HibariVoice]:
    hibari = HibariVoice()
    hibari.start()
    await hibari.ready()
    yield hibari
    await hibari.aclose()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def spoken(voice: HibariVoice, text: str, rate: float = 1.0) -> list[Speech]:
    return [piece async for piece in voice.speak(text, rate=rate)]


def loudness(speech: Speech, timed: TimedViseme) -> float:
    """Root mean square of the sound under one viseme; full scale is 1."""
    first, last = round(timed.start * speech.sample_rate), round(timed.end * speech.sample_rate)
    return float(np.sqrt(np.mean((speech.pcm[first:last] / 32768) ** 2)))


async def test_a_sentence_is_sound_with_visemes_that_cover_it(voice: HibariVoice) -> None:
    (speech,) = await spoken(voice, "Good morning, my friend.")
    assert speech.sample_rate == 24_000
    assert speech.pcm.dtype == np.int16
    assert 1.2 < speech.seconds < 3.0
    assert 3000 < np.abs(speech.pcm).max() < 32767
    assert speech.visemes is not None
    assert speech.visemes[0].start == 0.0
    assert speech.visemes[-1].end == pytest.approx(speech.seconds)
    assert all(before.end == after.start for before, after in pairwise(speech.visemes))


async def test_the_first_sound_comes_without_a_pause(voice: HibariVoice) -> None:
    (speech,) = await spoken(voice, "Hello.")
    first_heard = np.flatnonzero(np.abs(speech.pcm) > 300)[0] / speech.sample_rate
    assert first_heard < 0.08


async def test_a_sentence_ends_with_closed_lips_and_silence(voice: HibariVoice) -> None:
    (speech,) = await spoken(voice, "He goes home now.")
    assert speech.visemes is not None
    last = speech.visemes[-1]
    assert last.viseme is Viseme.SIL
    assert last.end - last.start == pytest.approx(SENTENCE_PAUSE, abs=0.15)
    assert loudness(speech, last) < 0.002


async def test_visemes_are_in_time_with_the_sound(voice: HibariVoice) -> None:
    """Vowels are loud where they are said to be, and moving them by 75 ms to either side makes the fit worse."""
    (speech,) = await spoken(voice, "Bob made a map of the pub.")
    assert speech.visemes is not None
    step = 0.005
    times = np.arange(0.1, speech.seconds - 0.1, step)
    vowel = np.array([next(timed.viseme for timed in speech.visemes if timed.end > time) in VOWELS for time in times], float)
    window = round(0.02 * speech.sample_rate)
    centres = (times * speech.sample_rate).astype(int)
    loud = np.array([np.sqrt(np.mean((speech.pcm[c - window // 2 : c + window // 2] / 32768) ** 2)) for c in centres])

    def fit(shift: float) -> float:
        return float(np.corrcoef(np.roll(vowel, round(shift / step)), np.log(loud + 1e-3))[0, 1])

    assert fit(0.0) > 0.5
    assert fit(0.0) > fit(0.075)
    assert fit(0.0) > fit(-0.075)
    shifts = [steps * step for steps in range(-20, 20)]
    assert abs(shifts[int(np.argmax([fit(shift) for shift in shifts]))]) <= 0.025


async def test_a_long_sentence_begins_with_a_short_piece_and_loses_nothing(voice: HibariVoice) -> None:
    pieces = await spoken(voice, LONG_SENTENCE)
    assert len(pieces) > 1
    assert len(pieces[0].text) <= 2 * SHORT
    assert "".join(piece.text for piece in pieces) == LONG_SENTENCE
    assert {piece.voice for piece in pieces} == {"hibari"}


async def test_the_rate_makes_speech_longer_or_shorter(voice: HibariVoice) -> None:
    lengths = [sum(piece.seconds for piece in await spoken(voice, "Now we count to ten.", rate)) for rate in (1.5, 1.0, 0.7, 0.0, 99.0)]
    assert lengths[0] < lengths[1] < lengths[2]
    assert lengths[3] > lengths[2]  # out of range: as slow and as fast as the model can
    assert lengths[4] < lengths[0]


async def test_the_same_text_sounds_the_same(voice: HibariVoice) -> None:
    (once,), (again,) = await spoken(voice, "Hello."), await spoken(voice, "Hello.")
    assert np.array_equal(once.pcm, again.pcm)


@pytest.mark.parametrize("text", ["42", "3.14", "$3.50 at 7:30", "naïve café", "π is 3.14", "2×3 ≤ 7²"])
async def test_numbers_signs_and_accents_are_spoken(voice: HibariVoice, text: str) -> None:
    assert voice.can_speak(text)
    assert sum(piece.seconds for piece in await spoken(voice, text)) > 0.5


@pytest.mark.parametrize("text", ["", "  ", "?!", "…", "—", "😀"])
async def test_text_without_words_is_silent(voice: HibariVoice, text: str) -> None:
    assert not voice.can_speak(text)
    assert await spoken(voice, text) == []


@pytest.mark.parametrize("text", ["你好", "Привет", "The word 你好 means hello."])
async def test_another_script_is_refused_and_not_left_out(voice: HibariVoice, text: str) -> None:
    assert not voice.can_speak(text)
    with pytest.raises(VoiceFailed, match="English only"):
        await spoken(voice, text)


async def test_the_event_loop_stays_free_while_the_voice_works(voice: HibariVoice) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await spoken(voice, LONG_SENTENCE)
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    assert turns > 20


async def test_leaving_a_sentence_early_leaves_the_voice_usable(voice: HibariVoice) -> None:
    stream = voice.speak(LONG_SENTENCE)
    await anext(stream)
    await stream.aclose()
    assert await spoken(voice, "Hello.")


async def test_several_sessions_share_the_worker(voice: HibariVoice) -> None:
    answers = await asyncio.gather(*(spoken(voice, f"Number {number}.") for number in range(5)))
    assert all(answers)


async def test_a_model_that_cannot_be_loaded_is_told_in_a_plain_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_g2p: object) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(voice_hibari, "HibariModel", broken)
    voice = HibariVoice()
    with pytest.raises(VoiceFailed, match="could not be loaded: no such file"):
        await spoken(voice, "Hello.")
    await voice.aclose()
