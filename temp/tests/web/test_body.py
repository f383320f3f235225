"""Bodies: strict, bounded in size and in time."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient
from structlog.testing import capture_logs

from gpuserver.errors import Cancelled, InvalidInput
from gpuserver.web import body
from gpuserver.web.body import parse_flag, read_body
from gpuserver.web.problem import problem_middleware
from gpuserver.wire import CreateSession, Offer


def _app() -> web.Application:
    async def tolerant(request: web.Request) -> web.Response:
        return web.json_response(text=(await read_body(request, CreateSession)).model_dump_json())

    async def strict(request: web.Request) -> web.Response:
        return web.json_response(text=(await read_body(request, Offer)).model_dump_json())

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_post("/tolerant", tolerant)
    app.router.add_post("/strict", strict)
    return app


async def test_unknown_fields_are_ignored_and_logged_by_name_only(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app())
    with capture_logs() as logs:
        answer = await client.post("/tolerant", json={"tutor_id": 1, "student_id": 2, "colour": "secret blue"})
    assert answer.status == 200
    assert "colour" not in await answer.json()
    (line,) = [line for line in logs if line["event"] == "unknown_fields_ignored"]
    assert line["fields"] == ["colour"]
    assert "secret blue" not in str(logs)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"tutor_id": "\\ud800", "student_id": 1}',
        b"[" * 100_000,
        b'{"tutor_id": NaN, "student_id": 1}',
    ],
)
async def test_what_is_not_the_json_asked_for_is_a_400(aiohttp_client: AiohttpClient, raw: bytes) -> None:
    client = await aiohttp_client(_app())
    answer = await client.post("/tolerant", data=raw, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert (await answer.json())["type"] == "urn:gpuserver:problem:invalid-input"


async def test_every_wrong_field_is_named_and_no_value_repeated(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app())
    answer = await client.post("/strict", json={"sdp": 5, "type": "hunter2", "more": "hunter3"})
    text = await answer.text()
    assert answer.status == 400
    assert [line.split(":")[0] for line in json.loads(text)["errors"]] == ["sdp", "type", "more"]
    assert "hunter2" not in text
    assert "hunter3" not in text


async def test_a_wrong_avatar_id_has_a_problem_type_of_its_own(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app())
    answer = await client.post("/tolerant", json={"tutor_id": 1, "student_id": 2, "avatar_id": "../etc"})
    assert (await answer.json())["type"] == "urn:gpuserver:problem:invalid-avatar-id"


async def test_a_body_too_large_is_a_413_whether_it_says_so_or_not(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app())
    large = b" " * (body.JSON_LIMIT + 1)
    headers = {"Content-Type": "application/json"}

    async def chunks() -> AsyncIterator[bytes]:
        yield large  # without a Content-Length

    assert (await client.post("/strict", data=io.BytesIO(large), headers=headers)).status == 413
    assert (await client.post("/strict", data=chunks(), headers=headers)).status == 413


async def test_compressed_and_foreign_bodies_are_a_415(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app())
    gzip = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (await client.post("/strict", data=b"x", headers=gzip, compress=None)).status == 415
    assert (await client.post("/strict", data=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})).status == 415


async def test_a_body_that_trickles_in_is_cut_off(aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "GRACE_SECONDS", 0.05)
    client = await aiohttp_client(_app())
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    writer.write(b'POST /strict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"sdp"')
    answer = await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()
    assert b" 408 " in answer


async def test_a_client_that_goes_away_within_its_body_is_no_mistake_of_the_server() -> None:
    async def broken() -> bytes:
        raise ConnectionResetError("Connection lost")

    with pytest.raises(Cancelled):
        await body.Pace().wait(broken())


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("Yes", True), ("on", True), ("false", False), ("0", False), ("", False), ("OFF", False)],
)
def test_flags_are_read_from_text_as_forms_send_them(text: str, value: bool) -> None:
    assert parse_flag("flag", text) is value


@pytest.mark.parametrize("text", ["2", "tru", "none", "-1"])
def test_other_text_is_no_flag(text: str) -> None:
    with pytest.raises(InvalidInput, match="flag"):
        parse_flag("flag", text)
