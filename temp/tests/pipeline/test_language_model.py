"""Which language model answers: what LLM says, what is reachable, and what stands in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from conftest import MakeSettings
from fake_ollama import fake_ollama
from fake_openai import fake_openai
from structlog.testing import capture_logs

from gpuserver.domain import Message, Token
from gpuserver.errors import CannotStart, LanguageModelFailed, UnknownModel
from gpuserver.messages import TextStream
from gpuserver.pipeline import language_model
from gpuserver.pipeline.language_model import ABSENCE_SECONDS, FRESH_SECONDS, ModelRouter, ReportingModel, make_language_model
from gpuserver.pipeline.llm_ollama import OllamaModel
from gpuserver.pipeline.outlook import Outlook

QUESTION = [Message("user", "What is two and two?")]
NOWHERE = "http://127.0.0.1:9"


async def ask(model: ReportingModel, name: str | None = None) -> list[Token]:
    return [token async for token in model.reply(QUESTION, model=name)]


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


async def test_auto_takes_ollama_when_it_answers(make_settings: MakeSettings) -> None:
    async with fake_ollama() as (_, url):
        model = make_language_model(make_settings(llm="auto", ollama_base_url=url, llm_default_model="tiny:latest"))
        tokens = await ask(model)
        assert model.status() == {"model": "tiny:latest", "fallback": None, "message": None}
        await model.aclose()
    assert text(tokens) == "Two and two."
    assert {(token.model, token.fallback) for token in tokens} == {("tiny:latest", None)}


async def test_a_name_without_a_tag_means_the_latest(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("tiny:latest",)) as (server, url):
        server.models.append("tiny")  # Ollama itself resolves the name
        server.models.reverse()
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="tiny"))
        tokens = await ask(model)
        await model.aclose()
    assert tokens[0].fallback is None


async def test_auto_takes_the_first_model_there_is_and_says_so(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("first:1b", "second:1b")) as (_, url):
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="big:70b"))
        tokens = await ask(model)
        assert model.status()["fallback"] == "The model big:70b is not there, first:1b answers."
        await model.aclose()
    assert tokens[0] == Token("Two ", "first:1b", "The model big:70b is not there, first:1b answers.")


async def test_auto_takes_the_openai_server_when_ollama_is_down(make_settings: MakeSettings) -> None:
    async with fake_openai() as (server, url):
        model = make_language_model(make_settings(ollama_base_url=NOWHERE, openai_base_url=url))
        tokens = await ask(model)
        await model.aclose()
    assert text(tokens) == "Two and two."
    assert server.requests[0]["model"] == "tiny"  # Ollama's default name means nothing to another server


async def test_auto_echoes_the_question_when_nothing_is_reachable(make_settings: MakeSettings) -> None:
    model = make_language_model(make_settings(ollama_base_url=NOWHERE))
    tokens = await ask(model)
    fallback = model.status()["fallback"]
    await model.aclose()
    assert "What is two and two?" in text(tokens)
    assert "No language model is reachable" in text(tokens)
    assert {token.model for token in tokens} == {"echo"}
    assert tokens[0].fallback == fallback
    assert isinstance(fallback, str)
    assert NOWHERE in fallback


async def test_who_answers_is_logged_when_that_changes_not_with_every_question(make_settings: MakeSettings) -> None:
    model = make_language_model(make_settings(ollama_base_url=NOWHERE))
    with capture_logs() as logs:
        for _ in range(3):
            await ask(model)
    await model.aclose()
    assert [line["model"] for line in logs if line["event"] == "language model chosen"] == ["echo"]


async def test_ollama_that_accepts_and_says_nothing_counts_as_down(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "PROBE_SECONDS", 0.05)
    async with fake_ollama() as (server, url):
        server.listing_hangs = True
        model = make_language_model(make_settings(ollama_base_url=url))
        tokens = await ask(model)
        await model.aclose()
    assert tokens[0].model == "echo"


async def test_a_failing_answer_is_not_repeated_by_another_model(make_settings: MakeSettings) -> None:
    async with fake_ollama("cut") as (_, url):
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="tiny:latest"))
        with pytest.raises(LanguageModelFailed):
            await ask(model)
        assert "in the middle" in str(model.status()["message"])
        await model.aclose()


@pytest.mark.parametrize(("llm", "said"), [("ollama", "cannot be reached"), ("openai", "cannot be reached")])
async def test_a_chosen_server_that_is_down_is_an_error(make_settings: MakeSettings, llm: str, said: str) -> None:
    model = make_language_model(make_settings(llm=llm, ollama_base_url=NOWHERE, openai_base_url=f"{NOWHERE}/v1"))
    with pytest.raises(LanguageModelFailed, match=said):
        await ask(model)
    await model.aclose()


async def test_llm_ollama_insists_on_its_model(make_settings: MakeSettings) -> None:
    async with fake_ollama() as (_, url):
        model = make_language_model(make_settings(llm="ollama", ollama_base_url=url, llm_default_model="big:70b"))
        with pytest.raises(LanguageModelFailed, match="has no model big:70b") as caught:
            await ask(model)
        await model.aclose()
    assert caught.value.advice == "Pull it with: ollama pull big:70b"


async def test_a_model_that_a_request_names_and_nobody_has_is_the_callers_mistake(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("tiny:latest",)) as (_, url):
        model = make_language_model(make_settings(llm="ollama", ollama_base_url=url, llm_default_model="tiny:latest"))
        with pytest.raises(UnknownModel) as caught:
            await ask(model, "none:1b")
        assert caught.value.status == 422
        assert model.status()["message"] is None
        await model.aclose()


async def test_a_session_may_name_its_model(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("tiny:latest", "tutor:1b")) as (server, url):
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="tiny:latest"))
        tokens = await ask(model, "tutor:1b")
        await model.aclose()
    assert server.requests[0]["model"] == "tutor:1b"
    assert tokens[0].model == "tutor:1b"


async def test_an_openai_server_without_a_list_is_asked_for_the_named_model(make_settings: MakeSettings) -> None:
    async with fake_openai(models=None) as (server, url):
        model = make_language_model(make_settings(llm="openai", openai_base_url=url, llm_default_model="mine"))
        await ask(model)
        await model.aclose()
    assert server.requests[0]["model"] == "mine"


def test_llm_openai_without_an_address_cannot_start(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match="OPENAI_BASE_URL"):
        make_language_model(make_settings(llm="openai"))


async def test_llm_echo_is_no_fallback(make_settings: MakeSettings) -> None:
    model = make_language_model(make_settings(llm="echo"))
    model.start()
    tokens = await ask(model)
    await model.aclose()
    assert {token.fallback for token in tokens} == {None}


async def test_the_list_of_models_is_asked_for_again_after_a_while() -> None:
    clock = Clock()
    async with fake_ollama() as (server, url):
        model = router(url, clock)
        await ask(model)
        await ask(model)
        assert server.listed == 1
        clock.now += FRESH_SECONDS + 1
        await ask(model)
        assert server.listed == 2
        await model.aclose()


async def test_a_server_that_came_back_answers_again() -> None:
    clock = Clock()
    async with fake_ollama() as (server, url):
        models, server.models = server.models, []
        model = router(url, clock)
        assert (await ask(model))[0].model == "echo"
        server.models = models
        clock.now += FRESH_SECONDS + 1
        assert (await ask(model))[0].model == "tiny:latest"
        await model.aclose()


async def test_a_server_that_is_too_busy_to_list_its_models_again_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with fake_ollama() as (server, url):
        model = router(url, clock)
        assert (await ask(model))[0].model == "tiny:latest"
        monkeypatch.setattr(language_model, "PROBE_SECONDS", 0.05)
        server.listing_hangs = True
        clock.now += FRESH_SECONDS + 1
        assert (await ask(model))[0].model == "tiny:latest"
        await model.aclose()


async def test_a_server_that_was_overlooked_is_looked_for_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "PROBE_SECONDS", 0.05)
    clock = Clock()
    async with fake_ollama() as (server, url):
        server.listing_hangs = True
        model = router(url, clock)
        assert (await ask(model))[0].model == "echo"
        server.listing_hangs = False
        clock.now += ABSENCE_SECONDS + 1
        monkeypatch.undo()
        assert (await ask(model))[0].model == "tiny:latest"
        await model.aclose()


async def test_a_failed_answer_makes_the_next_question_look_again() -> None:
    async with fake_ollama("cut") as (server, url):
        model = router(url, Clock())
        with pytest.raises(LanguageModelFailed):
            await ask(model)
        server.mode = "ok"
        assert text(await ask(model)) == "Two and two."
        assert model.status()["message"] is None
        await model.aclose()


async def test_start_looks_in_the_background_and_aclose_stops_it() -> None:
    async with fake_ollama() as (server, url):
        server.listing_hangs = True
        model = router(url, Clock())
        model.start()
        await model.aclose()
    assert model.status()["model"] is None


async def test_look_says_who_would_answer_and_why_not_the_wanted_one(make_settings: MakeSettings) -> None:
    async with fake_ollama() as (server, url):
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="tiny:latest"))
        assert await model.look() == Outlook("tiny:latest", "Ollama")
        await model.aclose()
        assert server.requests == []
    model = make_language_model(make_settings(ollama_base_url=NOWHERE))
    outlook = await model.look()
    assert (outlook.model, outlook.server) == ("echo", None)
    assert "No language model is reachable" in str(outlook.fallback)
    await model.aclose()


async def test_a_strict_model_that_is_not_there_has_an_outlook_without_a_server(make_settings: MakeSettings) -> None:
    model = make_language_model(make_settings(llm="ollama", ollama_base_url=NOWHERE, llm_default_model="tiny"))
    outlook = await model.look()
    assert (outlook.model, outlook.server) == ("tiny", None)
    assert "cannot be reached" in str(outlook.fallback)
    await model.aclose()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def router(url: str, clock: Callable[[], float]) -> ModelRouter:
    return ModelRouter([OllamaModel(url, "tiny:latest", 0.4)], strict=False, monotonic=clock)


async def test_the_choices_are_the_models_of_the_server_that_answers(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("small:1b", "tiny:latest")) as (_, url):
        model = make_language_model(make_settings(ollama_base_url=url, llm_default_model="tiny"))
        assert [(choice.id, choice.default) for choice in await model.choices()] == [("small:1b", False), ("tiny:latest", True)]
        await model.aclose()


async def test_models_can_be_chosen_where_the_wanted_one_is_missing(make_settings: MakeSettings) -> None:
    async with fake_ollama(models=("small:1b",)) as (_, url):
        model = make_language_model(make_settings(llm="ollama", ollama_base_url=url, llm_default_model="big:70b"))
        assert [(choice.id, choice.default) for choice in await model.choices()] == [("small:1b", False)]
        await model.aclose()


async def test_without_a_server_there_is_nothing_to_choose(make_settings: MakeSettings) -> None:
    for llm in ("auto", "ollama", "echo"):
        model = make_language_model(make_settings(llm=llm, ollama_base_url=NOWHERE))
        assert await model.choices() == []
        await model.aclose()


class HalvesServer:
    """Cuts between the halves of a character, as servers do that count in UTF-16."""

    kind, base_url, model = "fake", "http://fake", "half"

    async def models(self) -> list[str]:
        return [self.model]

    async def reply(
        self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None
    ) -> AsyncGenerator[Token, None]:
        for piece in ("Good \ud83d", "\ude00", " bye\ud83d"):
            yield Token(piece, self.model)

    async def aclose(self) -> None:
        pass


async def test_a_character_that_comes_in_halves_can_be_sent_to_the_student() -> None:
    said = text(await ask(ModelRouter([HalvesServer()], strict=True)))
    assert said == "Good 😀 bye\ufffd"
    assert "😀" in TextStream(turn=1, delta=said).model_dump_json()
