"""What the fakes of language model servers have in common: how an answer is streamed, and the faults that it can have."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from aiohttp import web
from attentive_server import AttentiveServer

WORDS = ("Two ", "and ", "two.")
REFUSALS = {"failing": (500, "out of memory"), "unavailable": (503, "loading"), "busy": (429, "too many requests")}
BROKEN = ("cut", "abort", "error_in_stream", "garbage", "not_an_object", "invalid_utf8")  # after the second word
WHOLE = (
    "ok", "slow", "hang", "hang_before_token", "hang_after_token", "empty", "whitespace", "endless", "huge_token", "thinking",
    "only_thinking",
)  # fmt: skip
MODES = (*WHOLE, *BROKEN, *REFUSALS, "html")


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


class FakeLanguageServer(ABC):
    """Streams `words`, or fails in the way that its mode names. A subclass knows the protocol.

    refusals: modes that answer with a status and a message. pieces: what a mode of BROKEN sends instead of the third word.
    """

    content_type: ClassVar[str]
    pieces: ClassVar[dict[str, bytes]]
    refusals: ClassVar[dict[str, tuple[int, str]]] = REFUSALS

    def __init__(self, mode: str, words: Sequence[str]):
        assert mode in {*MODES, *self.refusals}
        self.mode = mode
        self.words = list(words)
        self.open_answers = 0
        self.answer_closed = asyncio.Event()
        self.released = asyncio.Event()

    def release(self) -> None:
        """Let what hangs come to an end."""
        self.released.set()

    @abstractmethod
    def refusal(self, message: str) -> object:
        """The body of an error, as JSON."""

    @abstractmethod
    def part(self, word: str) -> bytes:
        """One word of the stream."""

    @abstractmethod
    def end(self) -> bytes:
        """The end of the stream."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The answer to a request that the protocol has accepted."""
        if self.mode in self.refusals:
            status, message = self.refusals[self.mode]
            return web.json_response(self.refusal(message), status=status)
        if self.mode == "html":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
        if self.mode == "hang":
            await self.released.wait()
        response = web.StreamResponse(headers={"Content-Type": self.content_type})
        await response.prepare(request)
        self.open_answers += 1
        try:
            await self._stream(request, response)
        finally:
            self.open_answers -= 1
            self.answer_closed.set()
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.mode == "hang_before_token":
            await self.released.wait()
        for number, word in enumerate(words_of(self.mode, self.words)):
            await response.write(self.part(word))
            if self.mode == "slow":
                await asyncio.sleep(0.05)
            if number == 0 and self.mode == "hang_after_token":
                await self.released.wait()
            if number == 1 and self.mode in BROKEN:
                await response.write(self.pieces.get(self.mode, b""))
                if self.mode == "abort":
                    assert request.transport is not None
                    request.transport.abort()
                return
        await response.write(self.end())


@asynccontextmanager
async def served(fake: FakeLanguageServer, routes: Sequence[web.RouteDef]) -> AsyncIterator[str]:
    """The address at which the fake listens."""
    app = web.Application()
    app.add_routes(routes)
    async with AttentiveServer(app) as server:
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            fake.release()
