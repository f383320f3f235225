"""Whatever a language model's server does, the student hears an answer or an apology, in time, and nothing is left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fake_ollama as ollama
import fake_openai as openai
import pytest
from conftest import MakeSettings
from fakes import FakeEngine, FakeRenderer, FakeStage, FakeVoice, fake_avatar

from gpuserver.config import Settings
from gpuserver.domain import Generation, Message
from gpuserver.messages import ErrorEvent, ServerMessage, TextComplete
from gpuserver.pipeline import language_model, llm_ollama, llm_openai, thought
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.language_model import make_language_model
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.thought import APOLOGIES, BREAK_OFFS, FILLERS
from gpuserver.pipeline.turn import Line, Turn

ANSWERED = {"ok", "slow", "thinking"}  # in these modes the model says all that it has to say
BOUNDED = {"endless", "huge_token"}  # and in these, as much as a student can bear
STALLED = {"hang", "hang_before_token", "hang_after_token"}
LONGEST = 400  # characters
ANSWER, APOLOGY, FILLER = "Two and two.", APOLOGIES["en"], FILLERS["en"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thought, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(language_model, "STALL_SECONDS", 0.6)
    monkeypatch.setattr(language_model, "LONGEST_ANSWER", LONGEST)
    for module in (llm_ollama, llm_openai):
        monkeypatch.setattr(module, "READ_SECONDS", 0.6)


@asynccontextmanager
async def server(kind: str, mode: str, make_settings: MakeSettings) -> AsyncIterator[Settings]:
    if kind == "ollama":
        async with ollama.fake_ollama(mode) as (_, url):
            yield make_settings(llm="ollama", ollama_base_url=url, llm_default_model="tiny:latest")
    else:
        async with openai.fake_openai(mode) as (_, url):
            yield make_settings(llm="openai", openai_base_url=url, llm_default_model="tiny")


class Told:
    """One question, asked of the model that the settings name: what was spoken, written and reported."""

    def __init__(self) -> None:
        self.events: list[ServerMessage] = []
        self.voice = FakeVoice()

    async def ask(self, settings: Settings) -> None:
        model, engine = make_language_model(settings), FakeEngine()
        studio = Studio(model, self.voice, engine, FakeRenderer(engine))
        line = Line("Why?", False, Generation(1), asyncio.get_running_loop().time())
        turn = Turn(line, studio, Scene(fake_avatar(), FakeStage()), self.events.append, messages=[Message("user", "Why?")])
        async with asyncio.timeout(60):
            await turn.run()
        await model.aclose()

    @property
    def spoken(self) -> list[str]:
        return self.voice.sentences

    @property
    def failed(self) -> bool:
        return any(isinstance(event, ErrorEvent) for event in self.events)

    @property
    def written(self) -> str:
        return next(event.text for event in self.events if isinstance(event, TextComplete))


CASES = [("ollama", mode) for mode in ollama.MODES] + [("openai", mode) for mode in openai.MODES]


@pytest.mark.parametrize(("kind", "mode"), CASES)
async def test_every_fault_ends_in_an_answer_or_a_spoken_apology(make_settings: MakeSettings, kind: str, mode: str) -> None:
    told = Told()
    before = asyncio.all_tasks()
    async with server(kind, mode, make_settings) as settings:
        await told.ask(settings)
    assert told.spoken
    if mode in ANSWERED:
        assert (told.spoken[-1], told.written, told.failed) == (ANSWER, ANSWER, False)
    elif mode in BOUNDED:
        assert len(told.written) == LONGEST
        assert not told.failed
    else:
        assert told.failed
        assert told.spoken[-1] == (BREAK_OFFS["en"] if told.written.strip() else APOLOGY)
    if mode in STALLED:
        assert told.spoken[0] == FILLER
    assert "think" not in told.written
    assert "see" not in told.written
    async with asyncio.timeout(10):
        while asyncio.all_tasks() != before:  # noqa: ASYNC110 - the loop closes a generator that openai's client has dropped
            await asyncio.sleep(0)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://nowhere.invalid:11434"])
@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_server_that_is_not_there_is_apologized_for(make_settings: MakeSettings, kind: str, address: str) -> None:
    told = Told()
    await told.ask(make_settings(llm=kind, ollama_base_url=address, openai_base_url=f"{address}/v1"))
    assert told.spoken[-1] == APOLOGY
    assert told.failed


async def test_a_model_that_is_not_there_is_apologized_for(make_settings: MakeSettings) -> None:
    told = Told()
    async with ollama.fake_ollama() as (_, url):
        await told.ask(make_settings(llm="ollama", ollama_base_url=url, llm_default_model="big:70b"))
    assert told.spoken[-1] == APOLOGY
