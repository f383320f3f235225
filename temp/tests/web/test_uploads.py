"""Uploads: fields in any order, bounded, malformed ones refused, and nothing left behind."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.web import body, uploads
from gpuserver.web.problem import problem_middleware
from gpuserver.web.uploads import receive_form

LIMIT = 3 * 1024 * 1024
FORM = {"Content-Type": "multipart/form-data; boundary=cut"}


def _app(folder: Path) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        async with receive_form(request, file_field="file", folder=folder, limit=LIMIT) as form:
            size = form.file.stat().st_size if form.file else None
            return web.json_response({"fields": form.fields, "size": size})

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_post("/", handler)
    return app


def _parts(*parts: bytes, end: bytes = b"--cut--\r\n") -> dict[str, object]:
    data = b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + end
    return {"data": io.BytesIO(data), "headers": FORM}


def _text(name: str, value: bytes = b"v") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


def _file(content: bytes, headers: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="file"; filename="../../a.mp4"\r\n{headers}\r\n'.encode() + content


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_fields_may_come_in_any_order(aiohttp_client: AiohttpClient, tmp_path: Path, order: tuple[int, ...]) -> None:
    client = await aiohttp_client(_app(tmp_path))
    parts = [_text("a", b"1"), _text("b", "头像".encode()), _file(b"x" * 100_000)]
    answer = await client.post("/", **_parts(*(parts[index] for index in order)))  # type: ignore[arg-type]
    assert await answer.json() == {"fields": {"a": "1", "b": "头像"}, "size": 100_000}
    assert list(tmp_path.iterdir()) == []


async def test_a_form_as_libraries_make_it_is_read(aiohttp_client: AiohttpClient, tmp_path: Path) -> None:
    client = await aiohttp_client(_app(tmp_path))
    form = aiohttp.FormData({"a": "1"})
    form.add_field("file", io.BytesIO(b"y" * LIMIT), filename="v.mp4", content_type="video/mp4")
    answer = await client.post("/", data=form)
    assert await answer.json() == {"fields": {"a": "1"}, "size": LIMIT}


@pytest.mark.parametrize(
    ("name", "request_", "status"),
    [
        ("no end", _parts(_text("a"), end=b""), 400),
        ("cut in the file", _parts(_file(b"x" * 1000), end=b"--cu"), 400),
        ("no boundary", {"data": b"hello", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        (
            "another boundary",
            {"data": b"--other\r\n\r\n--other--\r\n", "headers": FORM},
            400,
        ),
        ("a boundary too long", {"data": b"", "headers": {"Content-Type": "multipart/form-data; boundary=" + "x" * 300}}, 400),
        ("nothing", {"data": b"", "headers": FORM}, 400),
        ("a part without a name", _parts(b"Content-Disposition: form-data\r\n\r\nv"), 400),
        ("a part without headers", _parts(b"\r\nv"), 400),
        ("broken part headers", _parts(b"Content-Disposition form-data\r\n\r\nv"), 400),
        ("headers without end", _parts(b"X: " + b"x" * 100_000), 400),
        ("a nested form", _parts(b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\nv\r\n--in--"), 400),
        ("a field twice", _parts(_text("a"), _text("a")), 400),
        ("a file twice", _parts(_file(b"1"), _file(b"2")), 400),
        ("text that is no UTF-8", _parts(_text("a", b"\xff")), 400),
        ("a long text", _parts(_text("a", b"x" * 5000)), 400),
        ("a bad charset", _parts(_text("_charset_", b"x" * 32)), 400),
        ("many parts", _parts(*(_text(f"f{number}") for number in range(40))), 400),
        ("a large file", _parts(_file(b"x" * (LIMIT + 1))), 413),
        ("a compressed file", _parts(_file(b"x", "Content-Encoding: gzip\r\n")), 415),
        ("base64", _parts(_file(b"eA==", "Content-Transfer-Encoding: base64\r\n")), 415),
        ("no form", {"json": {}}, 415),
        (
            "a compressed body",
            {"data": b"x", "headers": {**FORM, "Content-Encoding": "gzip"}},
            415,
        ),
    ],
)
async def test_a_bad_form_is_refused_and_leaves_nothing(
    aiohttp_client: AiohttpClient, tmp_path: Path, name: str, request_: dict[str, object], status: int
) -> None:
    client = await aiohttp_client(_app(tmp_path))
    answer = await client.post("/", **request_)  # type: ignore[arg-type]
    assert (answer.status, answer.content_type) == (status, "application/problem+json"), name
    assert (await answer.json())["advice"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")  # aiohttp warns, we refuse
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionParam")
@given(garbage=st.binary(max_size=200), where=st.integers(0, 120))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_garbage_in_a_form_is_a_server_error(tmp_path: Path, garbage: bytes, where: int) -> None:
    form = b"--cut\r\n" + _text("a") + b"\r\n--cut\r\n" + _file(b"x" * 20) + b"\r\n--cut--\r\n"

    async def post() -> int:
        async with TestClient(TestServer(_app(tmp_path))) as client:
            headers = FORM
            return (await client.post("/", data=form[:where] + garbage + form[where:], headers=headers)).status

    assert asyncio.run(post()) in {200, 400, 415}
    assert list(tmp_path.iterdir()) == []


async def _half_an_upload(port: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=cut\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"--cut\r\n" + _file(b"x" * 100_000))
    await writer.drain()
    return reader, writer


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another process's view: the file system tells no event
        await asyncio.sleep(0.01)


async def test_a_client_gone_during_upload_leaves_nothing(aiohttp_client: AiohttpClient, tmp_path: Path) -> None:
    client = await aiohttp_client(_app(tmp_path))
    _, writer = await _half_an_upload(client.server.port)
    await _until(lambda: any(tmp_path.iterdir()))
    writer.close()
    await writer.wait_closed()
    await _until(lambda: not any(tmp_path.iterdir()))


async def test_an_upload_that_trickles_in_is_cut_off(
    aiohttp_client: AiohttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(body, "SLOWEST_RATE", 10**9)
    client = await aiohttp_client(_app(tmp_path))
    reader, writer = await _half_an_upload(client.server.port)
    answer = await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()
    assert b" 408 " in answer
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_is_a_507(aiohttp_client: AiohttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "_write", full)
    client = await aiohttp_client(_app(tmp_path))
    answer = await client.post("/", **_parts(_file(b"x")))  # type: ignore[arg-type]
    assert answer.status == 507
    assert list(tmp_path.iterdir()) == []
