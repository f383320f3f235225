"""The echo model: what it says when nothing else can answer."""

from __future__ import annotations

import pytest

from gpuserver.domain import Message
from gpuserver.pipeline.llm_echo import LONGEST_QUOTE, EchoModel, answer


async def test_it_answers_the_last_question_in_pieces() -> None:
    messages = [Message("user", "First?"), Message("assistant", "Yes."), Message("user", "Second?")]
    tokens = [token async for token in EchoModel().reply(messages)]
    assert len(tokens) > 3
    assert "".join(token.text for token in tokens) == answer("Second?")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is photosynthesis?", "You said: What is photosynthesis? No language model is reachable"),
        ("two plus two", "You said: two plus two. No language model is reachable"),
        ("什么是光合作用？", "你说的是：什么是光合作用？现在没有可用的语言模型"),
        ("光合作用", "你说的是：光合作用。现在没有可用的语言模型"),
    ],
)
def test_it_speaks_the_language_of_the_question(question: str, expected: str) -> None:
    assert answer(question).startswith(expected)


def test_a_long_question_is_not_repeated_whole() -> None:
    assert len(answer("word " * 1000)) < LONGEST_QUOTE + 200


async def test_the_reason_comes_with_every_token() -> None:
    tokens = [token async for token in EchoModel("Ollama is down.").reply([Message("user", "Hi")])]
    assert {token.fallback for token in tokens} == {"Ollama is down."}
