"""A fake of an OpenAI-compatible server, on the loopback, for the faults that a real one does not have on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from fake_ollama import WHOLE, words_of

MODES = (
    "ok", "slow", "cut", "abort", "error_in_stream", "garbage", "html", "not_an_object", "invalid_utf8", "failing", "unavailable", "busy",
    "unauthorized", "no_such_model", "hang", "hang_before_token", "hang_after_token", "empty", "whitespace", "endless", "huge_token",
    "thinking", "only_thinking",
)  # fmt: skip
REFUSALS = {
    "failing": (500, "out of memory"),
    "unavailable": (503, "loading"),
    "busy": (429, "too many requests"),
    "unauthorized": (401, "wrong key"),
    "no_such_model": (404, "no such model"),
}
WORDS = ("Two ", "and ", "two.")


class FakeOpenAi:
    """Answers "Two and two." in three events. mode: one of MODES.

    requests: the bodies; keys: the Authorization headers; kb_ids: the X-KB-ID headers.
    """

    def __init__(self, mode: str = "ok", models: tuple[str, ...] | None = ("tiny",)):
        assert mode in MODES
        self.mode = mode
        self.models = models  # None: the server keeps no list
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.kb_ids: list[str | None] = []
        self.answer_closed = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let what hangs come to an end."""
        self._released.set()

    async def list_models(self, _request: web.Request) -> web.Response:
        if self.models is None:
            return web.json_response({"error": {"message": "no such route"}}, status=404)
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        self.kb_ids.append(request.headers.get("X-KB-ID"))
        if self.mode in REFUSALS:
            status, message = REFUSALS[self.mode]
            return web.json_response({"error": {"message": message}}, status=status)
        if self.mode == "html":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
        if self.mode == "hang":
            await self._released.wait()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._stream(request, response)
        finally:
            self.answer_closed.set()
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.mode == "hang_before_token":
            await self._released.wait()
        for number, word in enumerate(words_of(self.mode, WORDS)):
            await response.write(_event(word))
            if self.mode == "slow":
                await asyncio.sleep(0.05)
            if number == 0 and self.mode == "hang_after_token":
                await self._released.wait()
            if number == 1 and self.mode not in WHOLE:
                await self._break_off(request, response)
                return
        await response.write(_event("", "stop"))
        await response.write(b"data: [DONE]\n\n")

    async def _break_off(self, request: web.Request, response: web.StreamResponse) -> None:
        match self.mode:
            case "abort":
                assert request.transport is not None
                request.transport.abort()
            case "error_in_stream":
                await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
            case "not_an_object":
                await response.write(b"data: [1, 2]\n\n")
            case "invalid_utf8":
                await response.write(b'data: {"choices": [{"delta": {"content": "\xff\xfe\n\n')
            case "garbage":
                await response.write(b"data: <html>\n\n")


def _event(content: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def fake_openai(mode: str = "ok", models: tuple[str, ...] | None = ("tiny",)) -> AsyncIterator[tuple[FakeOpenAi, str]]:
    """The fake, listening, and its OPENAI_BASE_URL."""
    fake = FakeOpenAi(mode, models)
    app = web.Application()
    app.router.add_get("/v1/models", fake.list_models)
    app.router.add_post("/v1/chat/completions", fake.complete)
    async with TestServer(app) as server:
        try:
            yield fake, f"http://127.0.0.1:{server.port}/v1"
        finally:
            fake.release()
