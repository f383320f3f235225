"""A fake Hugging Face hub on a real port: what huggingface_hub and a download need, and the troubles of a network."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """files: "owner/repository/name" -> content. Announces each with its sha256 as ETag, as the hub does for large files."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # the next transfers break off after so many bytes
    statuses: list[int] = field(default_factory=list)  # the next requests are answered with these
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    announces: bytes | None = None  # the content that HEAD speaks of, if it is another one
    url: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{owner}/{repository}/resolve/{revision}/{name:.+}", self._resolve)
        return app

    @property
    def ranges(self) -> list[str | None]:
        """What the transfers asked for, in order."""
        return [span for method, _, span in self.requests if method == "GET"]

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, request.headers.get("Range")))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        part = request.match_info
        content = self.files.get(f"{part['owner']}/{part['repository']}/{part['name']}")
        if content is None or part["revision"] != COMMIT:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if request.method == "HEAD":
            return self._head(content if self.announces is None else self.announces)
        return await self._body(request, content)

    def _head(self, content: bytes) -> web.Response:
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"', "ETag": f'"{digest}"'}
        return web.Response(headers=headers)

    async def _body(self, request: web.Request, content: bytes) -> web.StreamResponse:
        start = request.http_range.start or 0
        if start > len(content):
            return web.Response(status=416)
        headers = {"Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        answer = web.StreamResponse(status=206 if start else 200, headers=headers)
        await answer.prepare(request)
        if self.cut_after:
            await answer.write(content[start : start + self.cut_after.pop(0)])
            assert request.transport is not None
            request.transport.close()  # what was written is still sent
            return answer
        await answer.write(content[start:])
        return answer


@contextmanager
def served(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve it from a thread of its own, because downloads block."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(hub.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(20)
    try:
        yield hub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
