"""The Ollama client against a fake of Ollama: a streamed answer, and every way in which it can break."""

from __future__ import annotations

import asyncio

import pytest
from fake_ollama import fake_ollama

from gpuserver.domain import Message, Token
from gpuserver.errors import LanguageModelFailed
from gpuserver.pipeline import llm_ollama
from gpuserver.pipeline.llm_ollama import OllamaModel

QUESTION = [Message("system", "Be brief."), Message("user", "What is two and two?")]
MODEL = "tiny:latest"


async def answer(base_url: str, model: str = MODEL) -> list[Token]:
    ollama = OllamaModel(base_url, model, temperature=0.4)
    try:
        return [token async for token in ollama.reply(QUESTION)]
    finally:
        await ollama.aclose()


async def test_an_answer_streams_with_the_name_of_its_model() -> None:
    async with fake_ollama() as (server, url):
        tokens = await answer(url)
    assert [token.text for token in tokens] == ["Two ", "and ", "two."]
    assert {token.model for token in tokens} == {MODEL}
    assert server.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is two and two?"},
    ]
    assert server.requests[0]["options"]["temperature"] == 0.4


async def test_a_call_may_name_another_model() -> None:
    async with fake_ollama(models=("tiny:latest", "other:1b")) as (server, url):
        ollama = OllamaModel(url, MODEL, temperature=0)
        tokens = [token async for token in ollama.reply(QUESTION, model="other:1b")]
        await ollama.aclose()
    assert server.requests[0]["model"] == "other:1b"
    assert tokens[0].model == "other:1b"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("cut", "in the middle"),
        ("abort", "cannot be reached"),
        ("error_in_stream", "the model crashed"),
        ("garbage", "does not speak Ollama's protocol"),
        ("not_an_object", "does not speak Ollama's protocol"),
        ("failing", "out of memory"),
    ],
)
async def test_a_broken_answer_is_told_in_a_plain_sentence(mode: str, said: str) -> None:
    async with fake_ollama(mode) as (_, url):
        with pytest.raises(LanguageModelFailed, match=said):
            await answer(url)


async def test_the_tokens_before_the_cut_are_not_lost() -> None:
    heard = []
    async with fake_ollama("cut") as (_, url):
        ollama = OllamaModel(url, MODEL, temperature=0)
        with pytest.raises(LanguageModelFailed):
            async for token in ollama.reply(QUESTION):
                heard.append(token.text)  # noqa: PERF401 - kept although the stream raises
        await ollama.aclose()
    assert heard == ["Two ", "and "]


async def test_a_missing_model_comes_with_the_command_that_pulls_it() -> None:
    async with fake_ollama() as (_, url):
        with pytest.raises(LanguageModelFailed, match="has no model big:70b") as caught:
            await answer(url, "big:70b")
    assert caught.value.advice == "Pull it with: ollama pull big:70b"


async def test_a_refused_connection_is_told_in_a_plain_sentence() -> None:
    with pytest.raises(LanguageModelFailed, match="cannot be reached"):
        await answer("http://127.0.0.1:9")


async def test_a_refused_list_of_models_is_told_in_a_plain_sentence() -> None:
    ollama = OllamaModel("http://127.0.0.1:9", MODEL, temperature=0)
    with pytest.raises(LanguageModelFailed, match="cannot be reached"):
        await ollama.models()
    await ollama.aclose()


@pytest.mark.parametrize("mode", ["hang", "hang_after_token"])
async def test_a_silent_server_ends_with_the_time_out(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(llm_ollama, "READ_SECONDS", 0.05)
    async with fake_ollama(mode) as (_, url):
        with pytest.raises(LanguageModelFailed, match="in time"):
            await answer(url)


async def test_closing_the_answer_early_closes_the_http_stream() -> None:
    async with fake_ollama("hang_after_token") as (server, url):
        ollama = OllamaModel(url, MODEL, temperature=0)
        stream = ollama.reply(QUESTION)
        assert (await anext(stream)).text == "Two "
        await stream.aclose()
        async with asyncio.timeout(2):
            await server.answer_closed.wait()
        assert server.open_answers == 0
        await ollama.aclose()
