"""Long work keeps its client waiting, and ends with it."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from gpuserver.errors import Cancelled
from gpuserver.web import interim
from gpuserver.web.interim import while_client_awaits, while_client_stays, while_client_waits


class SlowWork:
    """A fake of long blocking work: takes `seconds` unless it is cancelled, and tells what became of it."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.started = threading.Event()
        self.ended = threading.Event()
        self.cancelled = False

    def __call__(self, cancel: threading.Event) -> str:
        self.started.set()
        self.cancelled = cancel.wait(self.seconds)
        self.ended.set()
        return "made"


def _app(work: SlowWork) -> web.Application:
    async def executor(app: web.Application) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1) as app[EXECUTOR]:
            yield

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=await while_client_waits(request, request.app[EXECUTOR], work), status=201)

    app = web.Application()
    app.cleanup_ctx.append(executor)
    app.router.add_post("/", handler)
    return app


EXECUTOR = web.AppKey("EXECUTOR", ThreadPoolExecutor)


async def test_a_default_httpx_client_outlasts_work_longer_than_its_5_s_read_timeout(aiohttp_server: AiohttpServer) -> None:
    server = await aiohttp_server(_app(SlowWork(6.0)))
    async with httpx.AsyncClient(trust_env=False) as client:
        assert client.timeout.read == 5.0
        answer = await client.post(str(server.make_url("/")))
    assert (answer.status_code, answer.text) == (201, "made")


async def _raw_answer(server_port: int | None, version: str, agent: str = "raw") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server_port)
    writer.write(
        f"POST / HTTP/{version}\r\nHost: 127.0.0.1\r\nUser-Agent: {agent}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_interim_answers_come_before_the_final_one(aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    server = await aiohttp_server(_app(SlowWork(0.3)))
    answer = await _raw_answer(server.port, "1.1")
    assert answer.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
    assert answer.count(b"HTTP/1.1 201 Created\r\n") == 1
    assert answer.endswith(b"made")


@pytest.mark.parametrize(
    ("version", "agent"),
    [
        ("1.0", "raw"),
        ("1.1", "python-requests/2.32"),
        ("1.1", "Python-urllib/3.11"),
        ("1.1", "x\r\nX-Forwarded-For: 1.2.3.4"),
        ("1.1", "x\r\nVia: 1.1 p"),
    ],
)
async def test_clients_that_cannot_skip_interim_answers_get_none(
    aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch, version: str, agent: str
) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    server = await aiohttp_server(_app(SlowWork(0.2)))
    answer = await _raw_answer(server.port, version, agent)
    assert b" 102 " not in answer
    assert answer.split(b"\r\n")[0].endswith(b" 201 Created")


async def test_pythons_http_client_still_takes_102_for_the_final_answer(
    aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the reason for CANNOT_SKIP_INTERIM: when this fails, the list may go."""
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    server = await aiohttp_server(_app(SlowWork(0.2)))

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port or 0)
        connection.request("POST", "/")
        status = connection.getresponse().status
        connection.close()
        return status

    assert await asyncio.to_thread(ask) == 102


async def test_work_is_cancelled_when_its_client_goes_away(aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    work = SlowWork(60.0)
    server = await aiohttp_server(_app(work))
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
    assert await asyncio.to_thread(work.started.wait, 10)
    writer.close()
    await writer.wait_closed()
    assert await asyncio.to_thread(work.ended.wait, 10)
    assert work.cancelled


Attend = Callable[[web.Request, Coroutine[None, None, str]], Awaitable[str]]


class SlowAnswer:
    """A fake of long work that awaits: ends when it is told to, and tells whether it was cancelled."""

    def __init__(self, attend: Attend = while_client_awaits) -> None:
        self.attend = attend
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended_with: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended_with.set_result("cancelled")
            raise
        return "made"

    def app(self) -> web.Application:
        async def handler(request: web.Request) -> web.Response:
            try:
                return web.Response(text=await self.attend(request, self()))
            except Cancelled:
                self.ended_with.result()
                raise web.HTTPBadRequest from None

        app = web.Application()
        app.router.add_post("/", handler)
        return app


async def test_work_that_awaits_keeps_its_client_waiting_too(aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.01)
    work = SlowAnswer()
    server = await aiohttp_server(work.app())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == interim.PROCESSING
    work.may_end.set()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.endswith(b"made")
    assert b"HTTP/1.1 200 OK" in answer


async def test_work_that_answers_by_itself_gets_no_interim_answers(aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.01)
    server = await aiohttp_server(SlowAnswer(while_client_stays).app())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("attend", [while_client_awaits, while_client_stays])
async def test_work_that_awaits_is_cancelled_when_its_client_goes_away(
    aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch, attend: Attend
) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.01)
    work = SlowAnswer(attend)
    server = await aiohttp_server(work.app())
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
    await work.started.wait()
    writer.close()
    await writer.wait_closed()
    assert await asyncio.wait_for(work.ended_with, 10) == "cancelled"
