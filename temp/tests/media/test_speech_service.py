"""The speech service: what OpenAI's clients ask of it, and the pair with our own client of such services."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from aiohttp import web
from fakes import FakeVoice
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from running_server import free_ports

from gpuserver.config import Settings
from gpuserver.domain import Pcm, Speech
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.media import speech_service
from gpuserver.media.speech_service import add_speech_routes
from gpuserver.pipeline.voice import StartedVoice, make_voice, own_voices
from gpuserver.pipeline.voice_http import HttpVoice
from gpuserver.pipeline.wav import WavDecoder
from gpuserver.web.middleware import middlewares
from gpuserver.wire import VoiceInfo

SECONDS_PER_WORD = 0.2
PAUSE = 0.02  # after a sentence
KEY = "k" * 32

MakeApp = Callable[..., web.Application]


class WordVoice(FakeVoice):
    """The fake voice with what a server needs of it, and a hum that MP3 does not filter out."""

    def start(self) -> None:
        pass

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        self.wanted = voice
        async for piece in super().speak(text, voice=voice, rate=rate):
            yield piece

    def choices(self) -> list[VoiceInfo]:
        return [
            VoiceInfo(id="hibari", name="Hibari", language="en"),
            VoiceInfo(id="zh-CN-YunxiNeural", name="Yunxi", language="zh-CN", available=False),
        ]


@pytest.fixture
def make_app(settings: Settings) -> Iterator[MakeApp]:
    def make(voice: StartedVoice | None, **overrides: Any) -> web.Application:
        app = web.Application(middlewares=middlewares(settings.model_copy(update=overrides)))
        add_speech_routes(app, voice)
        return app

    yield make


def decoded(content: bytes, container: str) -> Pcm:
    """The sound of a file: int16 mono."""
    with av.open(io.BytesIO(content), "r", format=container) as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
        frames = [each for frame in file.decode(audio=0) for each in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


async def test_wav_is_streamed_whole(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    client = await aiohttp_client(make_app(WordVoice()))
    body = {"model": "tts-1", "input": "One two three. Four five.", "voice": "alloy", "response_format": "wav"}
    answer = await client.post("/v1/audio/speech", json=body)
    assert (answer.status, answer.content_type) == (200, "audio/wav")
    assert answer.headers["X-Voice"] == "fake"
    assert "X-Voice-Fallback" not in answer.headers
    decoder = WavDecoder()
    pcm = decoder.decode(await answer.read())
    decoder.finish()
    assert decoder.sample_rate == 24_000
    assert len(pcm) / 24_000 == pytest.approx(5 * SECONDS_PER_WORD + 2 * PAUSE)


async def test_without_a_format_it_is_mp3_as_openai_has_it(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    client = await aiohttp_client(make_app(WordVoice()))
    answer = await client.post("/v1/audio/speech", json={"model": "tts-1", "input": "One two three.", "voice": "nova"})
    assert (answer.status, answer.content_type) == (200, "audio/mpeg")
    assert len(decoded(await answer.read(), "mp3")) / 24_000 == pytest.approx(3 * SECONDS_PER_WORD + PAUSE, abs=0.1)


async def test_pcm_has_24_khz_whatever_the_voice_has(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    voice = WordVoice()
    voice.RATE = 16_000
    client = await aiohttp_client(make_app(voice))
    answer = await client.post("/v1/audio/speech", json={"input": "One two.", "response_format": "pcm", "speed": 1.5})
    pcm = np.frombuffer(await answer.read(), "<i2")
    assert len(pcm) / 24_000 == pytest.approx(2 * SECONDS_PER_WORD + PAUSE, abs=0.005)
    assert np.abs(pcm[2400:4400].astype(int) - 1000).max() < 30  # FakeVoice's first word
    assert voice.rates == [1.5]


async def test_the_sound_begins_before_the_text_is_spoken(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    release = asyncio.Event()

    class PausingVoice(WordVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
            async for piece in super().speak(text):
                yield piece
            await release.wait()

    client = await aiohttp_client(make_app(PausingVoice()))
    answer = await client.post("/v1/audio/speech", json={"input": "One two.", "response_format": "pcm"})
    assert len(await answer.content.readexactly(9600)) == 9600
    release.set()
    await answer.read()


@pytest.mark.parametrize(
    ("voice", "model", "wanted"),
    [
        ("alloy", "tts-1", None),
        ("alloy", "hibari", "hibari"),
        ("zh-CN-YunxiNeural", "tts-1", "zh-CN-YunxiNeural"),
    ],
)
async def test_openais_voices_mean_no_voice_in_particular(
    aiohttp_client: AiohttpClient, make_app: MakeApp, voice: str, model: str, wanted: str | None
) -> None:
    speaker = WordVoice()
    client = await aiohttp_client(make_app(speaker))
    await client.post("/v1/audio/speech", json={"input": "One.", "voice": voice, "model": model})
    assert speaker.wanted == wanted


async def test_a_fallback_is_said_in_the_answer(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    client = await aiohttp_client(make_app(WordVoice(fallback="edge-tts is lost. 声音 speaks instead.")))
    answer = await client.post("/v1/audio/speech", json={"input": "One."})
    assert answer.headers["X-Voice-Fallback"] == "edge-tts is lost. ?? speaks instead."


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": ""}, 400),
        ({"input": "…"}, 400),
        ({"input": "x" * 4097}, 400),
        ({"input": "One.", "response_format": "opus"}, 400),
        ({"input": "One.", "speed": 9}, 400),
        ({}, 400),
        ({"input": "unspeakable"}, 422),
        ({"input": "This is easily said. The second sentence is unspeakable."}, 422),  # before the first one is heard
    ],
)
async def test_what_cannot_be_spoken_is_a_problem(
    aiohttp_client: AiohttpClient, make_app: MakeApp, body: dict[str, Any], status: int
) -> None:
    client = await aiohttp_client(make_app(WordVoice(unspeakable="unspeakable")))
    answer = await client.post("/v1/audio/speech", json=body)
    assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_text_that_no_voice_makes_a_sound_of_is_the_callers_matter(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    class Mute(WordVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
            for piece in list[Speech]():
                yield piece

    client = await aiohttp_client(make_app(Mute()))
    answer = await client.post("/v1/audio/speech", json={"input": "Ⱥ"})
    assert (answer.status, (await answer.json())["type"]) == (422, "urn:gpuserver:problem:unspeakable")


async def test_a_sound_that_breaks_off_is_not_taken_for_the_whole(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    class Lost(WordVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
            async for piece in super().speak(text, voice=voice, rate=rate):
                yield piece
                if piece.text == "Four":
                    raise VoiceUnreachable("The connection was cut.")

    client = await aiohttp_client(make_app(Lost()))
    with pytest.raises(aiohttp.ClientError):
        await (await client.post("/v1/audio/speech", json={"input": "One two three. Four five."})).read()


async def test_a_client_that_goes_away_stops_the_voice(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    stopped = asyncio.Event()

    class EndlessVoice(WordVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
            try:
                while True:
                    yield Speech(np.zeros(24_000, np.int16), 24_000, text, voice="fake")
            finally:
                stopped.set()

    client = await aiohttp_client(make_app(EndlessVoice()))
    answer = await client.post("/v1/audio/speech", json={"input": "One.", "response_format": "pcm"})
    await answer.content.readexactly(1000)
    answer.close()
    async with asyncio.timeout(10):
        await stopped.wait()


async def test_a_client_that_reads_nothing_is_let_go(
    aiohttp_client: AiohttpClient, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_service, "SLOWEST_READER_SECONDS", 0.05)
    voice = WordVoice()
    client = await aiohttp_client(make_app(voice))
    answer = await client.post("/v1/audio/speech", json={"input": "word " * 800, "response_format": "wav"})
    async with asyncio.timeout(10):
        while voice.open:
            await client.get("/tts/models")
    answer.close()


async def test_texts_beyond_the_limit_are_turned_away_and_come_through_later(
    aiohttp_client: AiohttpClient, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_service, "MOST_AT_ONCE", 1)
    begun, release = asyncio.Event(), asyncio.Event()

    class PausingVoice(WordVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
            begun.set()
            await release.wait()
            async for piece in super().speak(text):
                yield piece

    client = await aiohttp_client(make_app(PausingVoice()))
    first = asyncio.ensure_future(client.post("/v1/audio/speech", json={"input": "One."}))
    await begun.wait()
    refused = await client.post("/v1/audio/speech", json={"input": "One."})
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    release.set()
    assert await (await first).read()
    assert (await client.post("/v1/audio/speech", json={"input": "One."})).status == 200


async def test_the_models_are_the_voices(aiohttp_client: AiohttpClient, make_app: MakeApp) -> None:
    client = await aiohttp_client(make_app(WordVoice()))
    answer = await (await client.get("/tts/models")).json()
    assert [(model["id"], model["available"]) for model in answer["data"]] == [("hibari", True), ("edge-tts", False)]


async def test_with_api_keys_a_key_is_needed(aiohttp_client: AiohttpClient, make_settings: Callable[..., Settings]) -> None:
    app = web.Application(middlewares=middlewares(make_settings(api_keys=(KEY,))))
    add_speech_routes(app, WordVoice())
    client = await aiohttp_client(app)
    assert (await client.post("/v1/audio/speech", json={"input": "One."})).status == 401
    assert (await client.get("/tts/models")).status == 401
    assert (await client.get("/tts/models", headers={"Authorization": f"Bearer {KEY}"})).status == 200


# ---------------------------------------------------------------- the pair


async def test_our_own_client_hears_what_the_service_says(aiohttp_server: AiohttpServer, make_settings: Callable[..., Settings]) -> None:
    app = web.Application(middlewares=middlewares(make_settings(api_keys=(KEY,))))
    add_speech_routes(app, WordVoice(unspeakable="never"))
    server = await aiohttp_server(app)
    voice = HttpVoice(str(server.make_url("/")), KEY)
    pieces = [piece async for piece in voice.speak("One two three.")]
    assert sum(piece.seconds for piece in pieces) == pytest.approx(3 * SECONDS_PER_WORD + PAUSE)
    with pytest.raises(VoiceFailed) as refused:  # and not VoiceUnreachable: the service is well
        _ = [piece async for piece in voice.speak("never")]
    assert refused.type is VoiceFailed
    with pytest.raises(VoiceFailed):
        _ = [piece async for piece in HttpVoice(str(server.make_url("/"))).speak("One.")]


async def test_a_server_whose_speech_service_is_itself_speaks_and_does_not_ask_itself_for_ever(
    aiohttp_server: AiohttpServer, make_settings: Callable[..., Settings], make_app: MakeApp
) -> None:
    (port,) = free_ports(1)
    voice = make_voice(make_settings(tts_service_url=f"http://127.0.0.1:{port}", tts="auto"))
    asked: list[str] = []

    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        asked.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    app = make_app(own_voices(voice))
    app.middlewares.append(count)
    await aiohttp_server(app, port=port)
    try:
        spoken = [piece async for piece in voice.speak("One two three.", voice="http")]
    finally:
        await voice.aclose()
    assert sum(piece.seconds for piece in spoken) > 0.5
    assert asked == ["/v1/audio/speech"]


async def test_a_server_without_a_voice_of_its_own_says_so(
    aiohttp_client: AiohttpClient, make_settings: Callable[..., Settings], make_app: MakeApp
) -> None:
    voice = make_voice(make_settings(tts="http", tts_service_url="http://127.0.0.1:1"))
    client = await aiohttp_client(make_app(own_voices(voice)))
    answer = await client.post("/v1/audio/speech", json={"input": "One."})
    assert answer.status == 502
    assert "no voice of its own" in (await answer.json())["detail"]
    assert (await (await client.get("/tts/models")).json())["data"] == []
    await voice.aclose()
