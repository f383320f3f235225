"""The OpenAI-compatible client: against a real llama.cpp server, and against a fake for the faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from fake_openai import fake_openai
from tiny_llm import MODEL, SENTENCES, tiny_llm

from gpuserver.domain import Message, Token
from gpuserver.errors import LanguageModelFailed
from gpuserver.pipeline import llm_openai
from gpuserver.pipeline.llm_openai import OpenAiModel
from gpuserver.pipeline.sentences import sentences

QUESTION = [Message("system", "Be brief."), Message("user", "What is two and two?")]


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tiny_llm(Path(tmp_path_factory.mktemp("llm"))) as base_url:
        yield base_url


async def answer(base_url: str, model: str = "tiny", key: str | None = None) -> list[Token]:
    client = OpenAiModel(base_url, model, temperature=0.0, api_key=key)
    try:
        return [token async for token in client.reply(QUESTION)]
    finally:
        await client.aclose()


async def test_llama_cpp_streams_an_answer(llama_cpp: str) -> None:
    tokens = await answer(llama_cpp, MODEL)
    text = "".join(token.text for token in tokens)
    assert len(tokens) > 5
    assert {token.model for token in tokens} == {MODEL}
    words = {word for sentence in SENTENCES for word in sentence.split()}
    assert any(word in text for word in words)


async def test_llama_cpp_lists_its_model(llama_cpp: str) -> None:
    client = OpenAiModel(llama_cpp, "", temperature=0.0)
    assert await client.models() == [MODEL]
    await client.aclose()


async def test_what_llama_cpp_streams_becomes_sentences(llama_cpp: str) -> None:
    async def text() -> list[str]:
        client = OpenAiModel(llama_cpp, MODEL, temperature=0.0)
        async with aclosing(client.reply(QUESTION)) as tokens:
            pieces = [piece async for piece in sentences(token.text async for token in tokens)]
        await client.aclose()
        return pieces

    assert all(piece.strip() for piece in await text())


async def test_llama_cpp_can_be_left_in_mid_answer_and_asked_again(llama_cpp: str) -> None:
    client = OpenAiModel(llama_cpp, MODEL, temperature=0.0)
    for _ in range(5):
        stream = client.reply(QUESTION)
        assert (await anext(stream)).text
        await stream.aclose()
    assert [token async for token in client.reply(QUESTION)]
    await client.aclose()


@pytest.mark.parametrize(("key", "header"), [(None, "Bearer none"), ("secret", "Bearer secret")])
async def test_the_key_is_sent_and_may_be_absent(key: str | None, header: str) -> None:
    async with fake_openai() as (server, url):
        tokens = await answer(url, key=key)
    assert "".join(token.text for token in tokens) == "Two and two."
    assert server.keys == [header]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("cut", "in the middle"),
        ("abort", "cannot be reached"),
        ("error_in_stream", "out of memory"),
        ("garbage", "does not speak OpenAI's protocol"),
        ("unauthorized", "answers 401"),
    ],
)
async def test_a_broken_answer_is_told_in_a_plain_sentence(mode: str, said: str) -> None:
    async with fake_openai(mode) as (_, url):
        with pytest.raises(LanguageModelFailed, match=said):
            await answer(url)


@pytest.mark.parametrize("mode", ["hang", "hang_after_token"])
async def test_a_silent_server_ends_with_the_time_out(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(llm_openai, "READ_SECONDS", 0.05)
    async with fake_openai(mode) as (_, url):
        with pytest.raises(LanguageModelFailed, match="in time"):
            await answer(url)


async def test_a_refused_connection_is_told_in_a_plain_sentence() -> None:
    with pytest.raises(LanguageModelFailed, match="cannot be reached"):
        await answer("http://127.0.0.1:9/v1")


async def test_a_server_without_a_list_of_models_has_an_empty_list() -> None:
    async with fake_openai(models=None) as (_, url):
        client = OpenAiModel(url, "", temperature=0.0)
        assert await client.models() == []
        await client.aclose()


async def test_closing_the_answer_early_closes_the_http_stream() -> None:
    async with fake_openai("hang_after_token") as (server, url):
        client = OpenAiModel(url, "tiny", temperature=0.0)
        stream = client.reply(QUESTION)
        assert (await anext(stream)).text == "Two "
        await stream.aclose()
        async with asyncio.timeout(2):
            await server.answer_closed.wait()
        await client.aclose()


async def test_the_knowledge_base_goes_along_in_a_header_and_the_body_stays_openais() -> None:
    async with fake_openai() as (fake, base_url):
        client = OpenAiModel(base_url, "tiny", temperature=0.0)
        try:
            for kb_id in ("kb 7/数学", None):
                assert [token async for token in client.reply(QUESTION, kb_id=kb_id)]
        finally:
            await client.aclose()
    assert fake.kb_ids == ["kb%207/%E6%95%B0%E5%AD%A6", None]
    assert fake.requests[0] == fake.requests[1]
