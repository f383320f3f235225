"""The model that needs no model: it repeats the question and says that no language model is reachable."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from gpuserver.domain import Message, Token
from gpuserver.pipeline.language import language_of
from gpuserver.pipeline.outlook import Outlook
from gpuserver.wire import ModelInfo

NAME = "echo"
LONGEST_QUOTE = 400  # characters of the question that are repeated

_PIECES = re.compile(r"\s*\S{1,8}")  # an answer that streams, as a model's does


class EchoModel:
    """Always there, offline. fallback: why it answers instead of the wanted model; None where it is the wanted model."""

    def __init__(self, fallback: str | None = None):
        self._fallback = fallback

    def start(self) -> None:
        """Nothing has to be loaded."""

    @property
    def name(self) -> str:
        return NAME

    async def reply(
        self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None
    ) -> AsyncGenerator[Token, None]:
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        for piece in _PIECES.findall(answer(question)):
            yield Token(piece, NAME, self._fallback)

    def status(self) -> dict[str, object]:
        return {"model": NAME, "fallback": self._fallback}

    async def choices(self) -> list[ModelInfo]:
        return []

    async def look(self) -> Outlook:
        return Outlook(NAME, fallback=self._fallback)

    async def aclose(self) -> None:
        """Nothing is held."""


def answer(question: str) -> str:
    """What the echo model says, in the question's language: Chinese or English."""
    quote = " ".join(question.split())[:LONGEST_QUOTE]
    ended = quote.endswith((".", "!", "?", "…", "。", "！", "？"))
    if language_of(question) == "zh":
        return f"你说的是：{quote}{'' if ended else '。'}现在没有可用的语言模型，所以我只能重复你的话。"
    return f"You said: {quote}{'' if ended else '.'} No language model is reachable right now, so I can only repeat your words."
