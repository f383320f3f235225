"""Which voice speaks a sentence: what TTS says, the script of the text, and what is reachable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from conftest import MakeSettings

from gpuserver.domain import Speech
from gpuserver.errors import CannotStart, VoiceFailed, VoiceUnreachable
from gpuserver.pipeline.language import has_words, is_latin
from gpuserver.pipeline.voice import RETRY_ALONE_SECONDS, RETRY_SECONDS, VoiceRouter, make_voice

DOWN = "edge-tts cannot be reached."


class FakeNetworkVoice:
    """Says every sentence in three pieces. fails: what it raises instead; fails_after: how many pieces come before that."""

    name = "edge-tts"

    def __init__(self) -> None:
        self.fails: VoiceFailed | None = None
        self.fails_after = 0
        self.spoken: list[tuple[str, str | None]] = []
        self.probes = 0
        self.open = 0

    def can_speak(self, text: str) -> bool:
        return has_words(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        self.spoken.append((text, voice))
        self.open += 1
        try:
            for number in range(3):
                if self.fails is not None and number >= self.fails_after:
                    raise self.fails
                yield Speech(np.ones(240, np.int16), 24_000, text if number == 0 else "", voice="edge")
        finally:
            self.open -= 1

    async def probe(self) -> None:
        self.probes += 1
        if self.fails is not None:
            raise self.fails

    async def aclose(self) -> None: ...


class FakeLocalVoice:
    """Says Latin text in one piece. failing: it cannot."""

    name = "hibari"

    def __init__(self) -> None:
        self.started = 0
        self.closed = 0
        self.failing = False

    def start(self) -> None:
        self.started += 1

    def can_speak(self, text: str) -> bool:
        return is_latin(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        if self.failing:
            raise VoiceFailed("hibari failed.")
        yield Speech(np.ones(240, np.int16), 24_000, text, voice="hibari")

    async def aclose(self) -> None:
        self.closed += 1


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Studio:
    """A router between both fakes, with a clock."""

    def __init__(self, voice: str | None = None) -> None:
        self.network = FakeNetworkVoice()
        self.local = FakeLocalVoice()
        self.clock = Clock()
        self.router = VoiceRouter(self.network, self.local, voice=voice, monotonic=self.clock)

    async def speak(self, text: str, voice: str | None = None) -> list[Speech]:
        return [piece async for piece in self.router.speak(text, voice=voice)]

    async def probed(self) -> None:
        """Wait until the probe that runs in the background is done."""
        others = [task for task in asyncio.all_tasks() if task.get_name() == "look for the network voice"]
        await asyncio.gather(*others)


async def test_the_network_voice_speaks_while_it_answers() -> None:
    studio = Studio()
    pieces = await studio.speak("Hello.")
    assert [piece.voice for piece in pieces] == ["edge"] * 3
    assert {piece.fallback for piece in pieces} == {None}
    assert studio.router.status() == {"voice": "edge-tts", "edge-tts": "ok", "fallback": None}


async def test_a_sentence_that_did_not_begin_is_spoken_by_the_local_voice() -> None:
    studio = Studio()
    studio.network.fails = VoiceUnreachable(DOWN)
    (piece,) = await studio.speak("Hello.")
    assert piece.voice == "hibari"
    assert piece.fallback == f"{DOWN} hibari speaks instead."
    assert studio.router.status() == {"voice": "edge-tts", "edge-tts": "unreachable", "fallback": f"{DOWN} hibari speaks instead."}


async def test_what_was_half_said_is_not_said_again() -> None:
    studio = Studio()
    studio.network.fails, studio.network.fails_after = VoiceUnreachable(DOWN), 2
    pieces = []
    with pytest.raises(VoiceUnreachable):
        async for piece in studio.router.speak("Hello."):
            pieces.append(piece.voice)  # noqa: PERF401 - kept although the stream raises
    assert pieces == ["edge", "edge"]


async def test_a_lost_network_voice_is_left_alone_for_a_while_and_then_looked_for_in_the_background() -> None:
    studio = Studio()
    studio.network.fails = VoiceUnreachable(DOWN)
    await studio.speak("One.")
    studio.network.fails = None
    studio.clock.now += RETRY_SECONDS - 1
    assert (await studio.speak("Two."))[0].voice == "hibari"
    assert studio.network.probes == 0
    studio.clock.now += 1
    assert (await studio.speak("Three."))[0].voice == "hibari"  # it does not wait for the probe
    await studio.probed()
    assert studio.network.probes == 1
    assert (await studio.speak("Four."))[0].voice == "edge"
    assert [text for text, _ in studio.network.spoken] == ["One.", "Four."]


async def test_a_probe_that_fails_starts_the_wait_again() -> None:
    studio = Studio()
    studio.network.fails = VoiceUnreachable(DOWN)
    await studio.speak("One.")
    studio.clock.now += RETRY_SECONDS
    await studio.speak("Two.")
    await studio.probed()
    await studio.speak("Three.")
    await studio.probed()
    assert studio.network.probes == 1


async def test_start_loads_the_local_voice_and_looks_for_the_network_voice() -> None:
    studio = Studio()
    studio.network.fails = VoiceUnreachable(DOWN)
    studio.router.start()
    await studio.probed()
    assert studio.local.started == 1
    assert (await studio.speak("Hello."))[0].voice == "hibari"
    assert studio.network.spoken == []  # nobody waited for the network
    await studio.router.aclose()
    assert studio.local.closed == 1


async def test_a_refused_text_does_not_take_the_network_voice_away_from_others() -> None:
    studio = Studio()
    studio.network.fails = VoiceFailed("edge-tts sent no sound.")
    assert (await studio.speak("Hello.", "en-US-NobodyNeural"))[0].voice == "hibari"
    studio.network.fails = None
    assert (await studio.speak("Hello."))[0].voice == "edge"


async def test_chinese_that_only_the_lost_voice_speaks_is_reported() -> None:
    studio = Studio()
    studio.network.fails = VoiceUnreachable(DOWN)
    with pytest.raises(VoiceUnreachable, match="cannot be reached"):
        await studio.speak("你好。")
    with pytest.raises(VoiceUnreachable, match="No voice here speaks Chinese now"):
        await studio.speak("你好。")
    assert len(studio.network.spoken) == 1  # the second sentence did not wait
    studio.clock.now += RETRY_ALONE_SECONDS
    studio.network.fails = None
    assert len(await studio.speak("你好。")) == 3


async def test_a_script_that_no_voice_knows_is_reported() -> None:
    router = VoiceRouter(None, FakeLocalVoice())
    assert not router.can_speak("你好")
    with pytest.raises(VoiceFailed, match="No voice here speaks Chinese: 你好"):
        _ = [piece async for piece in router.speak("你好")]


@pytest.mark.parametrize(
    ("wanted", "text", "speaker", "given"),
    [
        ("hibari", "Hello.", "hibari", None),
        ("edge-tts", "Hello.", "edge", None),
        ("zh-CN-YunxiNeural", "你好。", "edge", "zh-CN-YunxiNeural"),
        ("hibari", "你好。", "edge", None),
    ],
)
async def test_a_session_may_name_its_voice(wanted: str, text: str, speaker: str, given: str | None) -> None:
    studio = Studio()
    pieces = await studio.speak(text, wanted)
    assert pieces[0].voice == speaker
    if speaker == "edge":
        assert studio.network.spoken == [(text, given)]


async def test_the_voice_of_the_settings_speaks_unless_a_session_names_another() -> None:
    studio = Studio(voice="zh-CN-YunxiNeural")
    await studio.speak("Hello.")
    await studio.speak("Hello.", "zh-CN-YunyangNeural")
    assert [voice for _, voice in studio.network.spoken] == ["zh-CN-YunxiNeural", "zh-CN-YunyangNeural"]


async def test_a_network_voice_asked_for_where_there_is_none_is_replaced_and_said_so() -> None:
    router = VoiceRouter(None, FakeLocalVoice())
    (piece,) = [piece async for piece in router.speak("Hello.", voice="zh-CN-YunxiNeural")]
    assert piece.fallback == "The voice zh-CN-YunxiNeural is not available, hibari speaks instead."


@pytest.mark.parametrize("text", ["", "?!", "😀", " \n"])
async def test_text_without_words_is_silent(text: str) -> None:
    studio = Studio()
    assert await studio.speak(text) == []
    assert studio.network.spoken == []


async def test_closing_the_stream_early_closes_the_network_voice() -> None:
    studio = Studio()
    stream = studio.router.speak("Hello.")
    await anext(stream)
    assert studio.network.open == 1
    await stream.aclose()
    assert studio.network.open == 0


async def test_a_local_voice_that_fails_too_is_an_error() -> None:
    studio = Studio()
    studio.network.fails, studio.local.failing = VoiceUnreachable(DOWN), True
    with pytest.raises(VoiceFailed, match="hibari failed"):
        await studio.speak("Hello.")


@pytest.mark.parametrize("tts", ["espeak", "http"])
def test_a_voice_of_a_later_version_cannot_start(make_settings: MakeSettings, tts: str) -> None:
    with pytest.raises(CannotStart, match=f"TTS={tts} is not available"):
        make_voice(make_settings(tts=tts))


def test_a_voice_name_that_is_none_cannot_start(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match="TTS_VOICE=Jenny is no voice"):
        make_voice(make_settings(tts_voice="Jenny"))


@pytest.mark.parametrize(
    ("tts", "preferred", "chinese"), [("auto", "edge-tts", True), ("edge-tts", "edge-tts", True), ("hibari", "hibari", False)]
)
async def test_tts_names_the_voice(make_settings: MakeSettings, tts: str, preferred: str, chinese: bool) -> None:
    router = make_voice(make_settings(tts=tts))
    assert router.name == preferred
    assert router.can_speak("你好") is chinese
    await router.aclose()
