"""Which voice speaks a sentence: what TTS says, the script of the text, and what is reachable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from conftest import MakeSettings

from gpuserver.domain import Speech
from gpuserver.errors import CannotStart, VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import voice_espeak
from gpuserver.pipeline.language import has_words, is_latin
from gpuserver.pipeline.voice import VoiceRouter, make_voice
from gpuserver.pipeline.voice_watch import RETRY_ALONE_SECONDS, RETRY_SECONDS, WatchedVoice
from gpuserver.wire import VoiceInfo

DOWN = "edge-tts cannot be reached."


class FakeNetworkVoice:
    """Says every sentence in three pieces. fails: what it raises instead; fails_after: how many pieces come before that."""

    def __init__(self, name: str = "edge-tts") -> None:
        self.name = name
        self.fails: VoiceFailed | None = None
        self.fails_after = 0
        self.spoken: list[tuple[str, str | None]] = []
        self.rates: list[float] = []
        self.probes = 0
        self.open = 0
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def can_speak(self, text: str) -> bool:
        return has_words(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        self.spoken.append((text, voice))
        self.rates.append(rate)
        self.open += 1
        try:
            for number in range(3):
                if self.fails is not None and number >= self.fails_after:
                    raise self.fails
                yield Speech(np.ones(240, np.int16), 24_000, text if number == 0 else "", voice=self.name.removesuffix("-tts"))
        finally:
            self.open -= 1

    async def probe(self) -> None:
        self.probes += 1
        if self.fails is not None:
            raise self.fails

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=self.name, name=self.name, language="mul")]

    async def aclose(self) -> None: ...


class FakeLocalVoice:
    """Says Latin text, or Latin and Chinese text, in one piece. failing: it cannot."""

    def __init__(self, name: str = "hibari") -> None:
        self.name = name
        self.started = 0
        self.closed = 0
        self.failing = False

    def start(self) -> None:
        self.started += 1

    def can_speak(self, text: str) -> bool:
        return is_latin(text) or (self.name == "espeak" and "你" in text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        if self.failing:
            raise VoiceFailed(f"{self.name} failed.")
        yield Speech(np.ones(240, np.int16), 24_000, text, voice=self.name)

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=self.name, name=self.name, language="en")]

    async def aclose(self) -> None:
        self.closed += 1


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Studio:
    """A router between the fakes, with a clock. service, last: whether there is a speech service before, and espeak after them."""

    def __init__(self, voice: str | None = None, *, service: bool = False, last: bool = False) -> None:
        self.network = FakeNetworkVoice()
        self.local = FakeLocalVoice()
        self.clock = Clock()
        self.service = FakeNetworkVoice("http")
        self.last = FakeLocalVoice("espeak")
        first = [WatchedVoice(self.service, self.clock)] if service else []
        end = [self.last] if last else []
        self.router = VoiceRouter([*first, WatchedVoice(self.network, self.clock), self.local, *end], voice=voice)

    async def speak(self, text: str, voice: str | None = None, rate: float = 1.0) -> list[Speech]:
        return [piece async for piece in self.router.speak(text, voice=voice, rate=rate)]

    async def probed(self) -> None:
        """Wait until the probe that runs in the background is done."""
        others = [task for task in asyncio.all_tasks() if task.get_name().startswith("look for ")]
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


async def test_no_address_means_that_edge_tts_is_preferred(make_settings: MakeSettings) -> None:
    router = make_voice(make_settings())
    assert router.name == "edge-tts"
    await router.aclose()


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
    assert studio.local.started == studio.network.started == 1
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
    router = VoiceRouter([FakeLocalVoice()])
    assert not router.can_speak("你好")
    with pytest.raises(VoiceFailed, match="No voice here speaks Chinese"):
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
    router = VoiceRouter([FakeLocalVoice()])
    (piece,) = [piece async for piece in router.speak("Hello.", voice="zh-CN-YunxiNeural")]
    assert piece.fallback == "The voice zh-CN-YunxiNeural is not available. hibari speaks instead."


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


# ---------------------------------------------------------------- with a speech service and a voice of last resort


async def test_the_speech_service_is_preferred_and_edge_tts_follows_it() -> None:
    studio = Studio(service=True)
    assert (await studio.speak("你好。"))[0].voice == "http"
    studio.service.fails = VoiceUnreachable("The service is down.")
    (first, *_) = await studio.speak("你好。")
    assert (first.voice, first.fallback) == ("edge", "The service is down. edge-tts speaks instead.")
    (again, *_) = await studio.speak("你好。")
    assert again.fallback == first.fallback
    assert len(studio.service.spoken) == 2  # the third sentence did not wait
    assert studio.router.status() == {
        "voice": "http", "http": "unreachable", "edge-tts": "ok", "fallback": "The service is down. edge-tts speaks instead.",
    }  # fmt: skip


async def test_a_speech_service_that_came_back_speaks_again() -> None:
    studio = Studio(service=True)
    studio.service.fails = VoiceUnreachable("The service is down.")
    await studio.speak("你好。")
    studio.service.fails = None
    studio.clock.now += RETRY_SECONDS
    assert (await studio.speak("你好。"))[0].voice == "edge"
    await studio.probed()
    assert (await studio.speak("你好。"))[0].voice == "http"
    assert studio.router.status()["fallback"] is None


async def test_offline_the_robotic_voice_says_what_hibari_cannot_and_says_so() -> None:
    studio = Studio(last=True)
    studio.network.fails = VoiceUnreachable(DOWN)
    (chinese,) = await studio.speak("你好。")
    assert (chinese.voice, chinese.fallback) == ("espeak", f"{DOWN} espeak, a robotic voice, speaks instead.")
    (english,) = await studio.speak("Hello.")
    assert (english.voice, english.fallback) == ("hibari", f"{DOWN} hibari speaks instead.")


async def test_when_all_fail_the_reasons_of_the_last_are_told() -> None:
    studio = Studio(service=True, last=True)
    studio.service.fails = studio.network.fails = VoiceUnreachable(DOWN)
    studio.local.failing = True
    (piece,) = await studio.speak("Hello.")
    assert piece.fallback == f"{DOWN} {DOWN} hibari failed. espeak, a robotic voice, speaks instead."
    studio.last.failing = True
    with pytest.raises(VoiceFailed, match="espeak failed"):
        await studio.speak("Hello.")


@pytest.mark.parametrize(
    ("wanted", "speaker", "given"),
    [
        (None, "http", None),
        ("http", "http", None),
        ("edge-tts", "edge", None),
        ("hibari", "hibari", None),
        ("espeak", "espeak", None),
        ("en-US-GuyNeural", "edge", "en-US-GuyNeural"),
        ("nova", "http", "nova"),
    ],
)
async def test_every_voice_can_be_named(wanted: str | None, speaker: str, given: str | None) -> None:
    studio = Studio(service=True, last=True)
    (piece, *_) = await studio.speak("Hello.", wanted)
    assert (piece.voice, piece.fallback) == (speaker, None)
    asked = [*studio.service.spoken, *studio.network.spoken]
    assert asked == ([("Hello.", given)] if speaker in {"http", "edge"} else [])


async def test_a_name_of_edge_tts_goes_to_the_only_service_there_is() -> None:
    service = FakeNetworkVoice("http")
    router = VoiceRouter([WatchedVoice(service)])
    _ = [piece async for piece in router.speak("Hello.", voice="en-US-GuyNeural")]
    assert service.spoken == [("Hello.", "en-US-GuyNeural")]


async def test_a_voice_that_cannot_say_a_sentence_is_replaced_and_said_so() -> None:
    studio = Studio(last=True)
    (piece, *_) = await studio.speak("你好。", "hibari")
    assert piece.fallback == "hibari cannot say this sentence. edge-tts speaks instead."


async def test_an_unknown_voice_is_replaced_and_said_so() -> None:
    (piece, *_) = await Studio().speak("Hello.", "nova")
    assert piece.fallback == "The voice nova is not available. edge-tts speaks instead."


async def test_the_rate_reaches_the_voice() -> None:
    studio = Studio()
    await studio.speak("Hello.", rate=0.8)
    assert studio.network.rates == [0.8]


async def test_the_choices_are_those_of_all_voices_and_tell_what_is_lost() -> None:
    studio = Studio(service=True, last=True)
    studio.service.fails = VoiceUnreachable(DOWN)
    await studio.speak("Hello.")
    offered = {choice.id: choice.available for choice in studio.router.choices()}
    assert offered == {"http": False, "edge-tts": True, "hibari": True, "espeak": True}


# ---------------------------------------------------------------- settings


def test_espeak_without_its_package_cannot_start_and_says_how_to_install_it(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_espeak, "is_installed", lambda: False)
    with pytest.raises(CannotStart, match="needs the package") as caught:
        make_voice(make_settings(tts="espeak"))
    assert caught.value.advice == "Install it with: pip install 'gpuserver[espeak]'"


def test_auto_does_without_espeak_where_it_is_not_installed(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_espeak, "is_installed", lambda: False)
    assert "espeak" not in {choice.id for choice in make_voice(make_settings()).choices()}


def test_http_without_an_address_cannot_start(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match="TTS_SERVICE_URL"):
        make_voice(make_settings(tts="http"))


@pytest.mark.parametrize(("tts", "known"), [("http", True), ("auto", True), ("hibari", False)])
def test_a_speech_service_may_have_voices_of_any_name(make_settings: MakeSettings, tts: str, known: bool) -> None:
    settings = make_settings(tts=tts, tts_voice="nova", tts_service_url="http://localhost:8604")
    if known:
        assert make_voice(settings).status()["voice"] == "nova"
    else:
        with pytest.raises(CannotStart, match="TTS_VOICE=nova is no voice"):
            make_voice(settings)


def test_a_voice_name_that_is_none_cannot_start(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match="TTS_VOICE=Jenny is no voice"):
        make_voice(make_settings(tts_voice="Jenny"))


@pytest.mark.parametrize(
    ("tts", "preferred", "chinese"),
    [
        ("auto", "http", True),
        ("edge-tts", "edge-tts", True),
        ("hibari", "hibari", False),
        ("espeak", "espeak", True),
        ("http", "http", True),
    ],
)
async def test_tts_names_the_voice(make_settings: MakeSettings, tts: str, preferred: str, chinese: bool) -> None:
    router = make_voice(make_settings(tts=tts, tts_service_url="http://localhost:8604"))
    assert router.name == preferred
    assert router.can_speak("你好") is chinese
    await router.aclose()
