"""A fake of Ollama's native HTTP API (GET /api/tags, POST /api/chat), on the loopback, with the faults it can have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

MODES = ("ok", "cut", "abort", "error_in_stream", "garbage", "not_an_object", "failing", "hang", "hang_after_token")


class FakeOllama:
    """Answers with `words`, one per line of the stream. mode: one of MODES. requests: the bodies of POST /api/chat."""

    def __init__(self, mode: str = "ok", models: Sequence[str] = ("tiny:latest",), words: Sequence[str] = ("Two ", "and ", "two.")):
        assert mode in MODES
        self.mode = mode
        self.models = list(models)
        self.words = list(words)
        self.requests: list[dict[str, Any]] = []
        self.listed = 0  # how often the list of models was asked for
        self.listing_hangs = False
        self.open_answers = 0
        self.answer_closed = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let what hangs come to an end."""
        self._released.set()

    async def tags(self, _request: web.Request) -> web.Response:
        self.listed += 1
        if self.listing_hangs:
            await self._released.wait()
        return web.json_response({"models": [{"name": model, "model": model} for model in self.models]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        if body["model"] not in self.models:
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        if self.mode == "failing":
            return web.json_response({"error": "out of memory"}, status=500)
        if self.mode == "hang":
            await self._released.wait()
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self.open_answers += 1
        try:
            await self._stream(request, response, body["model"])
        finally:
            self.open_answers -= 1
            self.answer_closed.set()
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, model: str) -> None:
        for number, word in enumerate(self.words):
            await response.write(_line(model, word))
            if number == 0 and self.mode == "hang_after_token":
                await self._released.wait()
            if number == 1 and self.mode != "ok":
                await self._break_off(request, response)
                return
        await response.write(_line(model, "", done=True))

    async def _break_off(self, request: web.Request, response: web.StreamResponse) -> None:
        match self.mode:
            case "abort":
                assert request.transport is not None
                request.transport.abort()
            case "error_in_stream":
                await response.write(b'{"error": "the model crashed"}\n')
            case "garbage":
                await response.write(b"<html>proxy error</html>\n")
            case "not_an_object":
                await response.write(b"[1, 2]\n")


def _line(model: str, content: str, *, done: bool = False) -> bytes:
    part = {"model": model, "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": content}, "done": done}
    return json.dumps(part).encode() + b"\n"


@asynccontextmanager
async def fake_ollama(
    mode: str = "ok", models: Sequence[str] = ("tiny:latest",), words: Sequence[str] = ("Two ", "and ", "two.")
) -> AsyncIterator[tuple[FakeOllama, str]]:
    """The fake, listening, and its address."""
    fake = FakeOllama(mode, models, words)
    app = web.Application()
    app.router.add_get("/api/tags", fake.tags)
    app.router.add_post("/api/chat", fake.chat)
    async with TestServer(app) as server:
        try:
            yield fake, f"http://127.0.0.1:{server.port}"
        finally:
            fake.release()
