"""A fake of Ollama's native HTTP API (GET /api/tags, POST /api/chat), on the loopback, with the faults it can have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from aiohttp import web
from fake_language_server import MODES, WORDS, FakeLanguageServer, served

__all__ = ["MODES", "FakeOllama", "fake_ollama"]


class FakeOllama(FakeLanguageServer):
    """Answers with `words`, one per line of the stream. requests: the bodies of POST /api/chat. listed: how often models were asked for."""

    content_type = "application/x-ndjson"
    pieces: ClassVar = {
        "error_in_stream": b'{"error": "the model crashed"}\n',
        "garbage": b"<html>proxy error</html>\n",
        "invalid_utf8": b'{"message": {"role": "assistant", "content": "\xff\xfe"}, "done": true\n',
        "not_an_object": b"[1, 2]\n",
    }

    def __init__(self, mode: str = "ok", models: Sequence[str] = ("tiny:latest",), words: Sequence[str] = WORDS):
        super().__init__(mode, words)
        self.models = list(models)
        self.requests: list[dict[str, Any]] = []
        self.listed = 0
        self.listing_hangs = False

    async def tags(self, _request: web.Request) -> web.Response:
        self.listed += 1
        if self.listing_hangs:
            await self.released.wait()
        return web.json_response({"models": [{"name": model, "model": model} for model in self.models]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        model = self.requests[-1]["model"]
        if model not in self.models:
            return web.json_response(self.refusal(f"model '{model}' not found"), status=404)
        return await self.answer(request)

    def refusal(self, message: str) -> object:
        return {"error": message}

    def part(self, word: str) -> bytes:
        return self._line(word)

    def end(self) -> bytes:
        return self._line("", done=True)

    def _line(self, content: str, *, done: bool = False) -> bytes:
        message = {"role": "assistant", "content": content}
        part = {"model": self.requests[-1]["model"], "created_at": "2026-01-01T00:00:00Z", "message": message, "done": done}
        return json.dumps(part).encode() + b"\n"


@asynccontextmanager
async def fake_ollama(
    mode: str = "ok", models: Sequence[str] = ("tiny:latest",), words: Sequence[str] = WORDS
) -> AsyncIterator[tuple[FakeOllama, str]]:
    """The fake, listening, and its address."""
    fake = FakeOllama(mode, models, words)
    async with served(fake, [web.get("/api/tags", fake.tags), web.post("/api/chat", fake.chat)]) as url:
        yield fake, url
