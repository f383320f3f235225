"""edge-tts against a fake of the service: what is heard, and every way in which it can fail."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_edge_tts import fake_edge_tts

from gpuserver.domain import Speech
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import voice_edge
from gpuserver.pipeline.voice_edge import EdgeVoice


async def spoken(text: str, voice: str | None = None, rate: float = 1.0) -> list[Speech]:
    return [piece async for piece in EdgeVoice().speak(text, voice=voice, rate=rate)]


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_edge, "FIRST_SOUND_SECONDS", 0.05)
    monkeypatch.setattr(voice_edge, "NEXT_SOUND_SECONDS", 0.05)


async def test_a_sentence_arrives_in_pieces_that_make_up_its_whole_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_edge_tts(monkeypatch, seconds=2.0) as service:
        pieces = await spoken("你好，世界。")
    assert len(pieces) > 5
    assert sum(piece.seconds for piece in pieces) == pytest.approx(2.0, abs=0.15)
    assert all(piece.sample_rate == 24_000 and piece.pcm.dtype == np.int16 and piece.visemes is None for piece in pieces)
    assert "".join(piece.text for piece in pieces) == "你好，世界。"
    assert service.voices() == ["Microsoft Server Speech Text to Speech Voice (zh-CN, XiaoxiaoNeural)"]
    loud = np.concatenate([piece.pcm for piece in pieces])[12_000:36_000]
    assert np.abs(loud).max() == pytest.approx(0.25 * 32767, rel=0.1)


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("Hello.", None, "(en-US, JennyNeural)"),
        ("こんにちは、世界", None, "(ja-JP, NanamiNeural)"),
        ("Привет", None, "(ru-RU, SvetlanaNeural)"),
        ("你好", "zh-CN-YunxiNeural", "(zh-CN, YunxiNeural)"),
        ("你好", "zh-CN-liaoning-XiaobeiNeural", "(zh-CN-liaoning, XiaobeiNeural)"),
        ("Hello.", "zh-CN-YunxiNeural", "(zh-CN, YunxiNeural)"),
        ("你好", "en-US-GuyNeural", "(zh-CN, XiaoxiaoNeural)"),  # Guy would leave the Chinese out
        ("你好", "en-US-EmmaMultilingualNeural", "(en-US, EmmaMultilingualNeural)"),
    ],
)
async def test_the_voice_knows_the_language(monkeypatch: pytest.MonkeyPatch, text: str, wanted: str | None, expected: str) -> None:
    async with fake_edge_tts(monkeypatch, seconds=0.2) as service:
        await spoken(text, wanted)
    assert service.voices()[0].endswith(expected)


@pytest.mark.parametrize("name", ["x'/><voice name='y", "en-US-JennyNeural'><break/>", "", "Jenny", "en-US-JennyNeural\n"])
async def test_a_voice_name_cannot_carry_markup(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async with fake_edge_tts(monkeypatch) as service:
        with pytest.raises(VoiceFailed, match="no name of an edge-tts voice"):
            await spoken("Hello.", name)
    assert service.requests == []


async def test_text_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_edge_tts(monkeypatch, seconds=0.2) as service:
        await spoken("if a < b & c")
    assert service.texts() == ["if a &lt; b &amp; c"]


async def test_long_chinese_text_is_sent_in_parts_without_losing_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "今天我们学习加法，" * 300
    async with fake_edge_tts(monkeypatch, seconds=0.2) as service:
        pieces = await spoken(text)
    assert len(service.requests) > 1
    assert "".join(service.texts()) == text
    assert all(len(part.encode()) <= 4096 for part in service.texts())
    assert "".join(piece.text for piece in pieces) == text


async def test_the_rate_is_sent_in_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_edge_tts(monkeypatch, seconds=0.2) as service:
        await spoken("Hello.", rate=0.8)
    assert "rate='-20%'" in service.requests[0]


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("cut", VoiceUnreachable, "in the middle"),
        ("abort", VoiceUnreachable, "."),
        ("hang", VoiceUnreachable, "in time"),
        ("hang_after_sound", VoiceUnreachable, "in time"),
        ("forbidden", VoiceUnreachable, "403"),
        ("garbage", VoiceUnreachable, "unexpected"),
        ("no_sound", VoiceFailed, "no sound"),
    ],
)
async def test_a_fault_of_the_service_is_told_in_a_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, mode: str, error: type[VoiceFailed], said: str
) -> None:
    if mode.startswith("hang"):
        be_impatient(monkeypatch)
    async with fake_edge_tts(monkeypatch, mode) as service:
        with pytest.raises(VoiceFailed, match=said) as caught:
            await spoken("Hello there.")
        assert type(caught.value) is error
    assert service.open_connections == 0


async def test_no_network_is_told_in_a_plain_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tts.communicate.WSS_URL", "ws://127.0.0.1:9/speech?token=1")
    with pytest.raises(VoiceUnreachable, match="no connection to 127"):
        await spoken("Hello.")


async def test_a_hanging_service_costs_no_more_than_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)
    async with fake_edge_tts(monkeypatch, "hang"), asyncio.timeout(5):
        with pytest.raises(VoiceUnreachable):
            await spoken("Hello.")


async def test_closing_the_stream_early_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_edge_tts(monkeypatch, seconds=5.0) as service:
        stream = EdgeVoice().speak("Hello.")
        await anext(stream)
        await stream.aclose()
    assert service.open_connections == 0


async def test_punctuation_alone_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_edge_tts(monkeypatch) as service:
        assert await spoken("?! …") == []
    assert service.requests == []


async def test_an_unknown_script_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not EdgeVoice().can_speak("ქართული")
    async with fake_edge_tts(monkeypatch) as service:
        with pytest.raises(VoiceFailed, match="no voice here"):
            await spoken("ქართული")
    assert service.requests == []
