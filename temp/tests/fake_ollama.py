"""A fake of Ollama's native HTTP API (GET /api/tags, POST /api/chat), on the loopback, with the faults it can have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

MODES = (
    "ok", "slow", "cut", "abort", "error_in_stream", "garbage", "html", "not_an_object", "invalid_utf8", "failing", "unavailable", "busy",
    "hang", "hang_before_token", "hang_after_token", "empty", "whitespace", "endless", "huge_token", "thinking", "only_thinking",
)  # fmt: skip
REFUSALS = {"failing": (500, "out of memory"), "unavailable": (503, "loading"), "busy": (429, "too many requests")}
WHOLE = (
    "ok",
    "slow",
    "thinking",
    "only_thinking",
    "whitespace",
    "huge_token",
    "empty",
    "hang_after_token",
    "hang_before_token",
    "hang",
    "endless",
)


def words_of(mode: str, words: Sequence[str]) -> Sequence[str]:
    """What the model writes in this mode."""
    match mode:
        case "empty":
            return ()
        case "whitespace":
            return (" ", "\n", " ")
        case "huge_token":
            return ("word " * 200_000,)
        case "thinking":
            return ("<thi", "nk>Let me see.", " Two?", "</think>", *words)
        case "only_thinking":
            return ("<think>", "Let me see.", " Two?")
        case "endless":
            return tuple(words) * 20_000
    return words


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
        if self.mode in REFUSALS:
            status, message = REFUSALS[self.mode]
            return web.json_response({"error": message}, status=status)
        if self.mode == "html":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
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
        if self.mode == "hang_before_token":
            await self._released.wait()
        for number, word in enumerate(words_of(self.mode, self.words)):
            await response.write(_line(model, word))
            if self.mode == "slow":
                await asyncio.sleep(0.05)
            if number == 0 and self.mode == "hang_after_token":
                await self._released.wait()
            if number == 1 and self.mode not in WHOLE:
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
            case "invalid_utf8":
                await response.write(b'{"message": {"role": "assistant", "content": "\xff\xfe"}, "done": true\n')
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
