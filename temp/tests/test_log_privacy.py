"""What the log tells of a conversation: ids, stages and outcomes; no word of it, no token, no key, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestServer
from conftest import MakeSettings
from fakes import FakeEngine, FakeLanguageModel, FakeRenderer, FakeStage, FakeVoice, fake_avatar
from receiver import Receiver

from gpuserver.domain import Generation, LanguageModel, Message, Speech, Voice
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.language_model import make_language_model
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Line, Turn
from gpuserver.web.logs import configure_logging

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)

MARK = "xylophone"  # is in everything that must not be logged
KEY = f"{MARK}-" + "k" * 32

MakeMedia = Callable[..., "Awaitable[MediaServer]"]


@pytest.fixture(autouse=True)
def _logging_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("gpuserver").setLevel(logging.NOTSET)
    structlog.reset_defaults()


async def _told(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of this kind."""
    async with asyncio.timeout(30):
        async for message in socket:
            told = json.loads(message.data)
            if told["type"] == kind:
                assert isinstance(told, dict)
                return told
    raise AssertionError(f"the socket ended without {kind}")


async def _converse(media: MediaServer, *, question: str = f"What is a {MARK}?") -> tuple[str, str]:
    """A whole conversation; the session's id and the token."""
    session = await media.create(
        system_prompt=f"You play the {MARK}.", history=[{"role": "user", "content": f"My name is {MARK}."}], kb_id=MARK
    )
    async with Receiver() as receiver, await media.socket(session) as socket:
        await receiver.connect(media.negotiation(session))
        await receiver.until(lambda: len(receiver.pictures) > 0)
        await socket.send_json({"type": "ask", "text": question})
        await _told(socket, "trace")
        await socket.send_json({"type": "ask", "text": question})
        await _told(socket, "text_stream")
        await socket.send_json({"type": "interrupt"})
        await _told(socket, "trace")
        await socket.send_str(f"{MARK} is no JSON")
        await _told(socket, "error")
    await media.client.delete(f"/v1/sessions/{session['session_id']}", headers=media.internal)
    return session["session_id"], session["engine_token"]


def _lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


async def test_log_lines_of_a_conversation_carry_ids_and_no_word_of_it(
    make_media: MakeMedia, make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    from media_server_rig import StartedFakeModel

    media = await make_media(model=StartedFakeModel(f"The {MARK} is an instrument. A {MARK} is played with mallets."))
    configure_logging(make_settings(log_format="json", log_level="debug"))
    session_id, token = await _converse(media)
    printed = capfd.readouterr().err
    assert MARK not in printed
    assert token not in printed
    ended = [line for line in _lines(printed) if line["event"] == "turn_ended"]
    assert [(line["session_id"], line["turn"], line["outcome"]) for line in ended] == [
        (session_id, 1, "completed"),
        (session_id, 2, "interrupted"),
    ]
    assert {"first_token", "first_packet", "done"} <= ended[0]["ms"].keys()
    assert {line["session_id"] for line in _lines(printed) if line["event"].startswith("peer_")} == {session_id}


async def _answer(model: LanguageModel, voice: Voice) -> None:
    """A Turn with this model and this voice."""
    question, engine = f"What is a {MARK}?", FakeEngine()
    line = Line(question, False, Generation(1), asyncio.get_running_loop().time())
    studio = Studio(model, voice, engine, FakeRenderer(engine))
    await Turn(line, studio, Scene(fake_avatar(), FakeStage()), lambda event: None, messages=[Message("user", question)]).run()


class Parrot:
    """A language model's server that fails and repeats in its error what it was asked."""

    async def refuse(self, request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"cannot answer {await request.text()}"}}, status=500)

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "parrot", "object": "model"}]})

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.refuse)
        app.router.add_get("/v1/models", self.models)
        return app


async def test_a_failing_language_model_that_repeats_the_question_is_logged_without_its_words(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    async with TestServer(Parrot().app()) as server:
        settings = make_settings(
            llm="openai", openai_base_url=str(server.make_url("/v1")), openai_api_key=KEY, log_format="json", log_level="debug"
        )
        configure_logging(settings)
        model = make_language_model(settings)
        model.start()
        await _answer(model, FakeVoice())
        await model.aclose()
    printed = capfd.readouterr().err
    assert MARK not in printed
    (failed,) = [line for line in _lines(printed) if line["event"] == "language_model_failed"]
    assert (failed["problem"], failed["cause"]) == ("language-model-failed", "InternalServerError")
    (ended,) = [line for line in _lines(printed) if line["event"] == "turn_ended"]
    assert (ended["outcome"], ended["problems"]) == ("failed", ["language-model-failed"])


class StammeringVoice(FakeVoice):
    """Fails, and repeats what it was to say."""

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        raise VoiceFailed(f"I cannot say {text}")
        yield


async def test_a_voice_that_repeats_the_sentence_in_its_failure_is_logged_without_it(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging(make_settings(log_format="json", log_level="debug"))
    await _answer(FakeLanguageModel(f"A {MARK}."), StammeringVoice())
    printed = capfd.readouterr().err
    assert MARK not in printed
    assert [line["problem"] for line in _lines(printed) if line["event"] == "sentence_not_spoken"] == ["voice-failed"]
