"""API keys: who gets through to which route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient
from structlog.testing import capture_logs

from gpuserver.web.keys import CALLER, internal, key_in_query, needs_key, public, takes_engine_token
from gpuserver.web.middleware import middlewares

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]

KEY, OTHER_KEY, SECRET = "a" * 32, "b" * 40, "the internal secret"
ROUTES = {"/public": public, "/key": needs_key, "/query": key_in_query, "/token": takes_engine_token, "/internal": internal}


@pytest.fixture
def make_client(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> MakeClient:
    """A client of an application with one route of each kind, and one that states nothing. Its answers name the caller."""

    async def make(*, secret: str | None = SECRET, **settings: object) -> Client:
        app = web.Application(middlewares=middlewares(make_settings(**settings), secret=secret))
        for path, access in ROUTES.items():
            app.router.add_route("*", path, access(_answer()))
        app.router.add_get("/nothing-stated", _answer())
        return await aiohttp_client(app)

    return make


def _answer() -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request[CALLER])

    return answer


async def _open(client: Client, headers: dict[str, str] | None = None, query: str = "") -> set[str]:
    """The paths that answer 200; all others must say 401."""
    found = set()
    for path in [*ROUTES, "/nothing-stated"]:
        answer = await client.get(path + query, headers=headers)
        assert answer.status in {200, 401}, (path, answer.status)
        if answer.status == 200:
            found.add(path)
    return found


async def test_without_keys_only_the_internal_routes_are_closed(make_client: MakeClient) -> None:
    client = await make_client()
    everything = {*ROUTES, "/nothing-stated"}
    assert await _open(client) == everything - {"/internal"}
    assert await _open(client, {"Authorization": "Bearer superfluous"}) == everything - {"/internal"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {OTHER_KEY}"},
        {"X-API-Key": OTHER_KEY},
        {"X-API-Key": KEY, "Authorization": "Bearer another"},
    ],
)
async def test_any_of_the_keys_opens_all_but_the_internal_routes(make_client: MakeClient, headers: dict[str, str]) -> None:
    client = await make_client(api_keys=f"{KEY},{OTHER_KEY}")
    assert await _open(client, headers) == {*ROUTES, "/nothing-stated"} - {"/internal"}


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"Authorization": f"Basic {KEY}"}, ""),
        ({"Authorization": KEY}, ""),
        ({"X-API-Key": ""}, "?api_key="),
        ({"X-API-Key": KEY[:-1]}, ""),
        ({"X-API-Key": KEY + "a"}, ""),
        ({"X-API-Key": KEY.upper()}, ""),
        ({"X-API-Key": "schlüssel"}, "?api_key=%ff"),
        ({"X-Internal-Secret": KEY}, ""),
        ({"Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET}, ""),
        ({"Cookie": f"api_key={KEY}"}, f"?key={KEY}&token={KEY}"),
    ],
)
async def test_without_one_of_the_keys_only_public_and_token_routes_are_open(
    make_client: MakeClient, headers: dict[str, str], query: str
) -> None:
    client = await make_client(api_keys=f"{KEY},{OTHER_KEY}")
    assert await _open(client, headers, query) == {"/public", "/token"}


async def test_a_key_in_the_query_opens_only_what_browsers_fetch_without_headers(make_client: MakeClient) -> None:
    client = await make_client(api_keys=KEY)
    assert await _open(client, query=f"?api_key={KEY}") == {"/public", "/token", "/query"}


@pytest.mark.parametrize("keys", ["", KEY])
async def test_the_internal_secret_opens_everything(make_client: MakeClient, keys: str) -> None:
    client = await make_client(api_keys=keys)
    assert await _open(client, {"X-Internal-Secret": SECRET}) == {*ROUTES, "/nothing-stated"}
    assert await (await client.get("/key", headers={"X-Internal-Secret": SECRET})).text() == "internal"


@pytest.mark.parametrize("none", [None, ""])
async def test_where_no_process_calls_no_secret_opens_anything(make_client: MakeClient, none: str | None) -> None:
    client = await make_client(secret=none, api_keys=KEY)
    for secret in ("", SECRET, "None"):
        assert await _open(client, {"X-Internal-Secret": secret}) == {"/public", "/token"}
    assert await _open(client) == {"/public", "/token"}


async def test_the_refusal_says_how_to_send_a_key(make_client: MakeClient) -> None:
    client = await make_client(api_keys=KEY)
    answer = await client.post("/key")
    problem = await answer.json()
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert problem["type"].endswith(":key-required")
    assert "X-API-Key" in problem["advice"]
    assert (await client.get("/nowhere")).status == 404


async def test_the_caller_is_known_by_the_number_of_the_key_and_no_key_is_logged(make_client: MakeClient) -> None:
    client = await make_client(api_keys=f"{KEY},{OTHER_KEY}")
    with capture_logs() as logs:
        answers = [
            await client.get("/key", headers={"X-API-Key": OTHER_KEY}),
            await client.get(f"/query?api_key={KEY}"),
            await client.get("/key", headers={"X-API-Key": KEY + OTHER_KEY}),
        ]
    assert [await answer.text() for answer in answers[:2]] == ["key 2", "key 1"]
    assert [line["status"] for line in logs if line["event"] == "request"] == [200, 200, 401]
    assert KEY not in str(logs)
    assert OTHER_KEY not in str(logs)
