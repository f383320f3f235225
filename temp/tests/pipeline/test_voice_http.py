"""A speech service of OpenAI's kind against a fake: what is heard, and every way in which it can fail."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_speech_service import fake_speech_service

from gpuserver.domain import Speech
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import voice_http
from gpuserver.pipeline.voice_http import HttpVoice


async def spoken(url: str, text: str = "Hello.", voice: str | None = None, rate: float = 1.0) -> list[Speech]:
    return [piece async for piece in HttpVoice(url).speak(text, voice=voice, rate=rate)]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_http, "FIRST_SOUND_SECONDS", 0.2)
    monkeypatch.setattr(voice_http, "NEXT_SOUND_SECONDS", 0.2)


@pytest.mark.parametrize(("mode", "rate"), [("wav", 22_050), ("wav_of_known_length", 22_050), ("stereo", 22_050), ("pcm", 24_000)])
async def test_a_sentence_streams_at_the_rate_that_the_service_speaks(mode: str, rate: int) -> None:
    async with fake_speech_service(mode, seconds=2.0) as (service, url):
        pieces = await spoken(url, "你好，世界。")
    assert len(pieces) > 5
    assert {piece.sample_rate for piece in pieces} == {rate}
    assert sum(len(piece.pcm) for piece in pieces) == 2 * rate
    assert all(piece.pcm.dtype == np.int16 and piece.visemes is None and piece.voice == "http" for piece in pieces)
    assert "".join(piece.text for piece in pieces) == "你好，世界。"
    sound = np.concatenate([piece.pcm for piece in pieces])
    assert np.abs(sound - np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate) * 8192).max() <= 1
    assert service.requests == [{"model": "tts-1", "input": "你好，世界。", "voice": "alloy", "response_format": "wav", "speed": 1.0}]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_in_v1(suffix: str) -> None:
    async with fake_speech_service(seconds=0.1) as (_, url):
        assert await spoken(url + suffix)


async def test_voice_and_rate_are_passed_on() -> None:
    async with fake_speech_service(seconds=0.1) as (service, url):
        pieces = await spoken(url, voice="nova", rate=0.2)
    assert (service.requests[0]["voice"], service.requests[0]["speed"]) == ("nova", 0.5)
    assert pieces[0].voice == "nova"


async def test_long_text_is_sent_in_parts_without_losing_a_character() -> None:
    text = "今天我们学习加法，" * 300
    async with fake_speech_service(seconds=0.1) as (service, url):
        await spoken(url, text)
    assert len(service.requests) > 1
    assert "".join(request["input"] for request in service.requests) == text


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("cut_chunks", VoiceUnreachable, "in the middle"),
        ("cut_length", VoiceUnreachable, "in the middle"),
        ("abort", VoiceUnreachable, "."),
        ("short_wav", VoiceUnreachable, "shorter than announced"),
        ("garbage", VoiceUnreachable, "no WAVE"),
        ("float_wav", VoiceUnreachable, "not 16-bit PCM"),
        ("html", VoiceUnreachable, "text/html and no sound"),
        ("json", VoiceUnreachable, "application/json and no sound"),
        ("empty", VoiceUnreachable, "never begins"),
        ("headers_only", VoiceFailed, "sent no sound"),
        ("failing", VoiceUnreachable, "answers 500: .*out of memory"),
        ("busy", VoiceUnreachable, "answers 503: Service Unavailable"),
        ("unknown_voice", VoiceFailed, "answers 400: .*no such voice"),
        ("hang", VoiceUnreachable, "in time"),
        ("hang_before_sound", VoiceUnreachable, "in time"),
        ("hang_after_sound", VoiceUnreachable, "in time"),
    ],
)
async def test_a_fault_of_the_service_is_told_in_a_plain_sentence(mode: str, error: type[VoiceFailed], said: str) -> None:
    async with fake_speech_service(mode) as (service, url):
        with pytest.raises(VoiceFailed, match=said) as caught:
            await spoken(url)
        service.release()
    assert type(caught.value) is error


async def test_what_came_before_a_cut_is_heard() -> None:
    heard = 0.0
    async with fake_speech_service("cut_chunks", seconds=2.0) as (_, url):
        with pytest.raises(VoiceUnreachable):
            async for piece in HttpVoice(url).speak("Hello."):
                heard += piece.seconds
    assert heard > 0.9


async def test_sound_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_http, "MOST_SECONDS", 5.0)
    async with fake_speech_service("endless") as (_, url):
        with pytest.raises(VoiceUnreachable, match="does not end"):
            await spoken(url)


@pytest.mark.parametrize(
    ("url", "said"), [("http://127.0.0.1:9", "cannot be reached"), ("http://nowhere.invalid", "cannot be reached"), ("nonsense", ".")]
)
async def test_no_service_is_told_in_a_plain_sentence(url: str, said: str) -> None:
    with pytest.raises(VoiceFailed, match=said):
        await spoken(url)


async def test_closing_the_stream_early_closes_the_connection() -> None:
    async with fake_speech_service("hang_after_sound", seconds=5.0) as (service, url):
        stream = HttpVoice(url).speak("Hello.")
        await anext(stream)
        await stream.aclose()
        service.release()
        async with asyncio.timeout(2):
            await service.answer_closed.wait()


async def test_text_without_words_is_silent() -> None:
    async with fake_speech_service() as (service, url):
        assert await spoken(url, "?!") == []
    assert service.requests == []
