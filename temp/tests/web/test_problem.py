"""Every refusal is application/problem+json and says what to do."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from gpuserver import errors
from gpuserver.errors import CannotStart, Full, GpuserverError
from gpuserver.web.middleware import add_security_headers
from gpuserver.web.problem import CONTENT_TYPE, problem_middleware


def _app(raised: Exception) -> web.Application:
    async def handler(_request: web.Request) -> web.Response:
        raise raised

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_get("/fails", handler)
    return app


async def test_an_error_becomes_its_problem_with_retry_after(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app(Full("10 of 10 slots are taken.", retry_after=7)))
    answer = await client.get("/fails")
    assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (429, CONTENT_TYPE, "7")
    assert await answer.json() == {
        "type": "urn:gpuserver:problem:sessions-full",
        "title": "Every session slot is taken",
        "status": 429,
        "detail": "10 of 10 slots are taken.",
        "advice": "Wait for a session to end, or raise MAX_SESSIONS.",
    }


async def test_an_unknown_address_is_a_problem(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app(RuntimeError()))
    answer = await client.get("/nowhere")
    assert (answer.status, answer.content_type) == (404, CONTENT_TYPE)
    assert (await answer.json())["advice"]


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app(RuntimeError()))
    answer = await client.delete("/fails")
    assert (answer.status, answer.content_type) == (405, CONTENT_TYPE)
    assert "GET" in answer.headers["Allow"]


async def test_a_mistake_of_the_server_is_logged_and_tells_nothing(
    aiohttp_client: AiohttpClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await aiohttp_client(_app(RuntimeError("the password is hunter2")))
    answer = await client.get("/fails")
    assert (answer.status, answer.content_type) == (500, CONTENT_TYPE)
    assert "hunter2" not in await answer.text()
    assert "request_failed" in capsys.readouterr().out


@pytest.mark.parametrize("raised", [Full("No slot is left."), web.HTTPNotFound(), RuntimeError()], ids=lambda error: type(error).__name__)
async def test_an_answer_that_has_begun_breaks_off_and_no_second_one_follows(aiohttp_server: AiohttpServer, raised: Exception) -> None:
    async def handler(request: web.Request) -> web.Response:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"first part")
        raise raised

    app = web.Application(middlewares=[problem_middleware])
    app.on_response_prepare.append(add_security_headers)
    app.router.add_get("/fails", handler)
    server = await aiohttp_server(app)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"first part")
    rest = b""
    with suppress(ConnectionResetError):
        rest = await reader.read()
    assert rest == b""
    writer.close()


async def test_a_redirect_passes_through(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(_app(web.HTTPFound("/elsewhere")))
    answer = await client.get("/fails", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")


def _tree(kind: type[GpuserverError]) -> list[type[GpuserverError]]:
    """The tree of errors.py; what a process defines below it is told as its parent."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in children for below in _tree(child))]


@pytest.mark.parametrize("kind", _tree(GpuserverError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_type_a_title_and_advice(kind: type[GpuserverError]) -> None:
    problem = kind("What happened.").problem()
    assert problem["status"] in range(400, 600)
    assert str(problem["type"]).startswith("urn:gpuserver:problem:")
    assert problem["title"]
    assert str(problem["advice"]).endswith(".")


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = errors.__doc__ or ""
    missing = [kind.__name__ for kind in _tree(GpuserverError) if kind.__name__ not in drawn]
    assert missing == []


def test_problem_types_are_unique() -> None:
    slugs = [kind.slug for kind in _tree(GpuserverError)]
    assert len(slugs) == len(set(slugs))


ROW = re.compile(r"^\| `(?P<slug>[a-z-]+)` \| (?P<status>\d{3}) \| [^|]+\. \| [^|]+\. \|$", re.MULTILINE)


def test_every_problem_type_is_documented_with_its_status_and_what_to_do() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "problems.md").read_text()
    documented = {match["slug"]: int(match["status"]) for match in ROW.finditer(text)}
    assert documented == {kind.slug: kind.status for kind in _tree(GpuserverError) if kind is not CannotStart}
