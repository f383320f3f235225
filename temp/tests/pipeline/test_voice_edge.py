"""edge-tts against a fake of the service: what is heard, and every way in which it can fail."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_edge_tts import fake_edge_tts

from gpuserver.domain import Speech, Viseme
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import edge_sentence, voice_edge
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.pronunciation import Pronunciation
from gpuserver.pipeline.voice_edge import EdgeVoice


async def spoken(text: str, voice: str | None = None, rate: float = 1.0) -> list[Speech]:
    return [piece async for piece in EdgeVoice().speak(text, voice=voice, rate=rate)]


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_sentence, "FIRST_SOUND_SECONDS", 0.05)
    monkeypatch.setattr(edge_sentence, "NEXT_SOUND_SECONDS", 0.05)


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
        ("cut_before_sound", VoiceFailed, "no sound"),
        ("cut_before_the_end", VoiceUnreachable, "in the middle"),
        ("missing_sound", VoiceUnreachable, "in the middle"),
        ("abort", VoiceUnreachable, "."),
        ("hang", VoiceUnreachable, "in time"),
        ("hang_after_turn_start", VoiceUnreachable, "in time"),
        ("hang_after_sound", VoiceUnreachable, "in time"),
        ("forbidden", VoiceUnreachable, "403"),
        ("unavailable", VoiceUnreachable, "503"),
        ("garbage_sound", VoiceUnreachable, "."),
        ("garbage", VoiceUnreachable, "unexpected"),
        ("no_sound", VoiceFailed, "no sound"),
    ],
)
async def test_a_fault_of_the_service_is_told_in_a_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, mode: str, error: type[VoiceFailed], said: str
) -> None:
    if mode.startswith("hang"):
        be_impatient(monkeypatch)
    async with fake_edge_tts(monkeypatch, mode, seconds=2.0) as service:
        with pytest.raises(VoiceFailed, match=said) as caught:
            await spoken("Hello there, how are you?")
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


@pytest.mark.parametrize("text", ["a\x00b\x0bc", "broken \ud800 text", "\ufffe\uffff fine", "<voice name='x'/>"])
async def test_what_xml_cannot_hold_is_left_out(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async with fake_edge_tts(monkeypatch, seconds=0.2) as service:
        assert await spoken(text)
    ssml = service.requests[0].partition("\r\n\r\n")[2]
    ElementTree.fromstring(ssml)


# ---------------------------------------------------------------- lips


@pytest.fixture(scope="module")
def pronunciation() -> Pronunciation:
    known = Pronunciation(EnglishG2p())
    known.load()
    return known


async def with_lips(pronunciation: Pronunciation, text: str, voice: str | None = None) -> list[Speech]:
    edge = EdgeVoice(pronunciation)
    await edge.ready()
    pieces = [piece async for piece in edge.speak(text, voice=voice)]
    await edge.aclose()
    return pieces


def joined(pieces: list[Speech]) -> list[tuple[Viseme, float, float]]:
    """The visemes of all pieces on the sentence's own time, equal neighbours as one."""
    track: list[tuple[Viseme, float, float]] = []
    begin = 0.0
    for piece in pieces:
        for timed in piece.visemes or ():
            if track and track[-1][0] is timed.viseme:
                track[-1] = (timed.viseme, track[-1][1], begin + timed.end)
            else:
                track.append((timed.viseme, begin + timed.start, begin + timed.end))
        begin += piece.seconds
    return track


@pytest.mark.parametrize("announcing", ["ahead", "late", "first", "last"])
@pytest.mark.parametrize(
    ("text", "voice", "first_word"),
    [
        ("Bob met Mary, my friend.", None, [Viseme.PP, Viseme.AA, Viseme.PP]),
        ("妈妈去学校。", None, [Viseme.PP, Viseme.AA, Viseme.PP, Viseme.AA]),
        ("Bonjour, mon ami.", "fr-FR-DeniseNeural", [Viseme.PP, Viseme.OH, Viseme.NN, Viseme.CH, Viseme.OU, Viseme.RR]),
        ("Eva spricht schön.", "de-DE-KatjaNeural", [Viseme.E, Viseme.FF, Viseme.AA]),
    ],
)
async def test_every_piece_has_visemes_that_cover_it(
    monkeypatch: pytest.MonkeyPatch,
    pronunciation: Pronunciation,
    announcing: str,
    text: str,
    voice: str | None,
    first_word: list[Viseme],
) -> None:
    monkeypatch.setattr(edge_sentence, "FIRST_HOLD_SECONDS", 5.0)
    monkeypatch.setattr(edge_sentence, "HOLD_SECONDS", 5.0)
    async with fake_edge_tts(monkeypatch, seconds=2.0, announcing=announcing):
        pieces = await with_lips(pronunciation, text, voice)
    assert sum(piece.seconds for piece in pieces) == pytest.approx(2.0, abs=0.15)
    for piece in pieces:
        assert piece.visemes is not None
        assert piece.visemes[0].start == 0.0
        assert piece.visemes[-1].end == pytest.approx(piece.seconds)
        assert all(before.end == pytest.approx(after.start) for before, after in pairwise(piece.visemes))
    track = joined(pieces)
    assert track[0][:2] == (Viseme.SIL, 0.0)
    assert track[0][2] == pytest.approx(0.1)
    assert [viseme for viseme, _, _ in track[1 : 1 + len(first_word)]] == first_word
    assert track[-1][0] is Viseme.SIL


async def test_the_first_sound_goes_on_before_the_sentence_is_complete(
    monkeypatch: pytest.MonkeyPatch, pronunciation: Pronunciation
) -> None:
    edge = EdgeVoice(pronunciation)
    await edge.ready()
    async with fake_edge_tts(monkeypatch, "hang_after_sound", seconds=5.0):
        stream = edge.speak("One two three four five six seven eight nine ten eleven twelve.")
        assert (await anext(stream)).visemes is not None
        await stream.aclose()
    await edge.aclose()


async def test_a_sentence_whose_words_are_never_announced_is_driven_by_its_sound(
    monkeypatch: pytest.MonkeyPatch, pronunciation: Pronunciation
) -> None:
    async with fake_edge_tts(monkeypatch, seconds=1.0, announcing="never"):
        pieces = await with_lips(pronunciation, "Hello there.")
    assert {piece.visemes for piece in pieces} == {None}
    assert sum(piece.seconds for piece in pieces) == pytest.approx(1.0, abs=0.15)


async def test_the_first_sound_does_not_wait_for_an_announcement(monkeypatch: pytest.MonkeyPatch, pronunciation: Pronunciation) -> None:
    edge = EdgeVoice(pronunciation)
    await edge.ready()
    async with fake_edge_tts(monkeypatch, "hang_after_sound", seconds=1.0, announcing="last"):
        stream = edge.speak("Hello there.")
        async with asyncio.timeout(edge_sentence.FIRST_SOUND_SECONDS):
            assert (await anext(stream)).visemes is None
        await stream.aclose()
    await edge.aclose()


@pytest.mark.parametrize(("text", "voice"), [("こんにちは、世界", None), ("Привет, мир", None), ("Zażółć", "pl-PL-ZofiaNeural")])
async def test_a_language_whose_words_are_not_known_here_is_driven_by_its_sound(
    monkeypatch: pytest.MonkeyPatch, pronunciation: Pronunciation, text: str, voice: str | None
) -> None:
    async with fake_edge_tts(monkeypatch):
        pieces = await with_lips(pronunciation, text, voice)
    assert {piece.visemes for piece in pieces} == {None}


async def test_without_dictionaries_the_voice_speaks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(Pronunciation):
        def load(self) -> None:
            raise OSError("no dictionary")

    async with fake_edge_tts(monkeypatch):
        pieces = await with_lips(Missing(EnglishG2p()), "Hello.")
    assert {piece.visemes for piece in pieces} == {None}


def test_every_voice_on_offer_can_be_named() -> None:
    choices = EdgeVoice().choices()
    assert all(voice_edge.VOICE_NAME.fullmatch(choice.id) for choice in choices)
    assert set(voice_edge.VOICES.values()) <= {choice.id for choice in choices}
    assert ("zh-CN-YunxiNeural", "Yunxi", "zh-CN") in {(choice.id, choice.name, choice.language) for choice in choices}
