"""The nginx example through a real nginx with TLS: one request of each kind, unbuffered both ways."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from api_pair import Pair, make_pair
from conftest import MakeSettings
from own_certificate import make_certificate
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from running_server import free_ports

from gpuserver.web.connection import HEADER_SECONDS

EXAMPLE = Path(__file__).resolve().parents[3] / "deploy" / "nginx" / "gpuserver.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
FRAME = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {example}
}}
"""


def test_nginx_lets_idle_connections_go_before_the_server_does() -> None:
    found = re.search(r"keepalive_timeout (\d+)s;", EXAMPLE.read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) < HEADER_SECONDS


def _configure(folder: Path, upstream: int, http: int, https: int) -> Path:
    """The example with this machine's ports and a certificate, as a configuration of its own."""
    make_certificate(folder)
    example = EXAMPLE.read_text(encoding="utf-8")
    for ours, theirs in (
        ("listen [::]:80;", ""),
        ("listen [::]:443 ssl;", ""),
        ("listen 80;", f"listen 127.0.0.1:{http};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{https} ssl;"),
        ("127.0.0.1:9000", f"127.0.0.1:{upstream}"),
        ("/etc/ssl/gpuserver", str(folder)),
    ):
        assert ours in example
        example = example.replace(ours, theirs)
    configuration = folder / "nginx.conf"
    configuration.write_text(FRAME.format(folder=folder, example=example))
    return configuration


async def _until_it_listens(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            await asyncio.sleep(0.05)  # another process: no event tells
        else:
            return


@asynccontextmanager
async def nginx(folder: Path, upstream: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the example in front of `upstream`."""
    assert NGINX, "install it first: sudo apt install nginx-light"
    http, https = free_ports(2)
    configuration = _configure(folder, upstream, http, https)
    running = await asyncio.create_subprocess_exec(NGINX, "-c", str(configuration), stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(30):
            await _until_it_listens(https)
        trust = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{https}", connector=connector, headers={"X-Port": str(https)}) as client:
            yield client
    finally:
        running.terminate()
        _, said = await running.communicate()
        assert running.returncode == 0, said.decode()


def test_nginx_finds_no_fault_in_the_example(tmp_path: Path) -> None:
    assert NGINX, "install it first: sudo apt install nginx-light"
    checked = subprocess.run([NGINX, "-t", "-c", _configure(tmp_path, 9000, 8080, 8443)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


@pytest.fixture
async def behind_nginx(
    tmp_path: Path, aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer, make_settings: MakeSettings
) -> AsyncIterator[tuple[aiohttp.ClientSession, Pair]]:
    """The management API as the documentation says it is to be set."""
    pair = await make_pair(aiohttp_client, aiohttp_server, make_settings, trusted_proxies=("127.0.0.1", "::1"), llm="echo")
    assert pair.client.port is not None
    async with nginx(tmp_path, pair.client.port) as client:
        yield client, pair


async def test_json_uploads_events_and_websockets_come_through(behind_nginx: tuple[aiohttp.ClientSession, Pair]) -> None:
    client, pair = behind_nginx
    port = client.headers["X-Port"]

    created = await client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2})
    session = await created.json()
    assert created.status == 201
    assert session["engine_url"] == f"wss://127.0.0.1:{port}/ws/{session['session_id']}"
    assert created.headers["Strict-Transport-Security"]

    form = aiohttp.FormData({"avatar_id": "ms_lee", "tutor_id": "1"})
    form.add_field("video_file", io.BytesIO(b"video" * 400_000), filename="ms_lee.mp4")  # 2 MB: more than nginx takes by default
    uploaded = await client.post("/v1/avatars/upload", data=form)
    assert uploaded.status == 201, await uploaded.text()
    assert pair.manager.uploaded == [b"video" * 400_000]

    answer = await client.post("/api/chat/stream", json={"message": "What is a prime number?"})
    assert answer.content_type == "text/event-stream"
    assert (await answer.text()).rstrip().endswith("data: [DONE]")

    async with client.ws_connect(f"/ws/{session['session_id']}?token={session['engine_token']}") as websocket:
        await websocket.send_str("你好")
        assert await websocket.receive_str(timeout=30) == "你好"

    assert (await client.get("/metrics")).status == 404


async def test_a_long_creation_is_one_answer_without_interim_ones(behind_nginx: tuple[aiohttp.ClientSession, Pair]) -> None:
    """nginx takes a 102 for the final answer."""
    client, pair = behind_nginx
    pair.manager.seconds = 3.0  # the first interim answer would come within 2 s
    form = aiohttp.FormData({"avatar_id": "slow"})
    form.add_field("video_file", b"video", filename="slow.mp4")
    created = await client.post("/v1/avatars/upload", data=form)
    assert (created.status, (await created.json())["avatar_id"]) == (201, "slow")


async def test_bodies_and_events_are_passed_on_while_they_are_made(tmp_path: Path, aiohttp_server: AiohttpServer) -> None:
    """Each side sends its second part only when the first one has arrived: a buffer between them would hold up both for ever."""
    arrived = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        parts = [await request.content.readany()]
        arrived.set()
        parts.append(await request.content.read())
        return web.json_response({"forwarded": request.headers["X-Forwarded-For"], "bytes": sum(map(len, parts))})

    async def tell(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await arrived.wait()
        await response.write(b"data: two\n\n")
        return response

    async def upload() -> AsyncIterator[bytes]:
        yield b"a" * 100
        await arrived.wait()
        yield b"b" * 100

    app = web.Application()
    app.router.add_post("/upload", receive)
    app.router.add_get("/events", tell)
    server = await aiohttp_server(app)
    assert server.port is not None
    async with nginx(tmp_path, server.port) as client, asyncio.timeout(60):
        answer = await client.post("/upload", data=upload(), headers={"X-Forwarded-For": "203.0.113.7"})
        assert json.loads(await answer.text()) == {"forwarded": "127.0.0.1", "bytes": 200}  # what a client claims does not get through
        arrived.clear()
        events = await client.get("/events")
        assert await events.content.readuntil(b"\n\n") == b"data: one\n\n"
        arrived.set()
        assert await events.content.read() == b"data: two\n\n"
