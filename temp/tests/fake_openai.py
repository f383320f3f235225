"""A fake of an OpenAI-compatible server, on the loopback, for the faults that a real one does not have on demand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from aiohttp import web
from fake_language_server import MODES as COMMON_MODES
from fake_language_server import REFUSALS, WORDS, FakeLanguageServer, served

MODES = (*COMMON_MODES, "unauthorized", "no_such_model")


class FakeOpenAi(FakeLanguageServer):
    """Answers "Two and two." in three events.

    models: None where the server keeps no list. requests: the bodies; keys: the Authorization headers; kb_ids: the X-KB-ID headers.
    """

    content_type = "text/event-stream"
    pieces: ClassVar = {
        "error_in_stream": b'data: {"error": {"message": "out of memory"}}\n\n',
        "garbage": b"data: <html>\n\n",
        "invalid_utf8": b'data: {"choices": [{"delta": {"content": "\xff\xfe\n\n',
        "not_an_object": b"data: [1, 2]\n\n",
    }
    refusals: ClassVar = {**REFUSALS, "unauthorized": (401, "wrong key"), "no_such_model": (404, "no such model")}

    def __init__(self, mode: str = "ok", models: tuple[str, ...] | None = ("tiny",)):
        super().__init__(mode, WORDS)
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.kb_ids: list[str | None] = []

    async def list_models(self, _request: web.Request) -> web.Response:
        if self.models is None:
            return web.json_response(self.refusal("no such route"), status=404)
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        self.kb_ids.append(request.headers.get("X-KB-ID"))
        return await self.answer(request)

    def refusal(self, message: str) -> object:
        return {"error": {"message": message}}

    def part(self, word: str) -> bytes:
        return _event(word)

    def end(self) -> bytes:
        return _event("", "stop") + b"data: [DONE]\n\n"


def _event(content: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def fake_openai(mode: str = "ok", models: tuple[str, ...] | None = ("tiny",)) -> AsyncIterator[tuple[FakeOpenAi, str]]:
    """The fake, listening, and its OPENAI_BASE_URL."""
    fake = FakeOpenAi(mode, models)
    async with served(fake, [web.get("/v1/models", fake.list_models), web.post("/v1/chat/completions", fake.complete)]) as url:
        yield fake, f"{url}/v1"
