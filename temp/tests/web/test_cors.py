"""CORS_ORIGINS: the pages of listed sites may call and read, with every answer, and nobody else's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.errors import CannotStart
from gpuserver.web.keys import needs_key, takes_engine_token
from gpuserver.web.middleware import add_security_headers, middlewares

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]

SITE, KEY = "https://school.example.org", "a" * 32
UNLISTED = ["https://school.example.org.evil.example", "http://school.example.org", "https://school.example.org:8443", "null", ""]


@pytest.fixture
def make_client(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> MakeClient:
    async def make(**settings: object) -> Client:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(text="ok")

        async def echo(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str("hello")
            await socket.close()
            return socket

        app = web.Application(middlewares=middlewares(make_settings(**settings)))
        app.on_response_prepare.append(add_security_headers)
        app.router.add_post("/thing", needs_key(answer))
        app.router.add_get("/ws", takes_engine_token(echo))
        return await aiohttp_client(app)

    return make


def _preflight(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.mark.parametrize("path", ["/thing", "/nowhere", "/ws"])
async def test_a_preflight_of_a_listed_site_is_answered_everywhere_and_needs_no_key(make_client: MakeClient, path: str) -> None:
    client = await make_client(cors_origins=f"https://other.example,{SITE}", api_keys=KEY, rate_limit="1/hour")
    for _ in range(3):
        answer = await client.options(path, headers=_preflight(SITE))
        assert (answer.status, await answer.read()) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Authorization", "X-API-Key", "Content-Type"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", UNLISTED)
async def test_an_unlisted_site_gets_no_leave_and_no_effect(make_client: MakeClient, origin: str) -> None:
    client = await make_client(cors_origins=SITE)
    preflight = await client.options("/thing", headers=_preflight(origin))
    call = await client.post("/thing", headers={"Origin": origin})
    for answer in (preflight, call):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert call.status == 403


async def test_by_default_no_site_is_listed(make_client: MakeClient) -> None:
    client = await make_client()
    assert "Access-Control-Allow-Origin" not in (await client.options("/thing", headers=_preflight(SITE))).headers
    assert (await client.post("/thing", headers={"Origin": SITE})).status == 403


@pytest.mark.parametrize(("path", "key", "status"), [("/thing", KEY, 200), ("/thing", "", 401), ("/nowhere", KEY, 404), ("/ws", KEY, 405)])
async def test_a_listed_site_reads_answers_and_refusals_with_their_headers(
    make_client: MakeClient, path: str, key: str, status: int
) -> None:
    client = await make_client(cors_origins=SITE, api_keys=KEY)
    answer = await client.post(path, headers={"Origin": SITE, "X-API-Key": key})
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Vary"] == "Origin"


async def test_a_listed_site_opens_a_websocket_and_no_other_does(make_client: MakeClient) -> None:
    client = await make_client(cors_origins=SITE)
    async with client.ws_connect("/ws", headers={"Origin": SITE}) as socket:
        assert await socket.receive_str() == "hello"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": UNLISTED[0]}
    assert (await client.get("/ws", headers=upgrade)).status == 403


async def test_any_site_may_be_listed_where_keys_protect(make_client: MakeClient) -> None:
    client = await make_client(cors_origins="*", api_keys=KEY)
    answer = await client.post("/thing", headers={"Origin": "https://anywhere.example", "X-API-Key": KEY})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("origins", "says"),
    [("*", "API_KEYS"), ("school.example.org", "is not an origin"), (f"{SITE}/", "is not an origin"), (f"{SITE}/app", "is not an origin")],
)
def test_lists_that_cannot_work_or_protect_nothing_are_refused(make_settings: MakeSettings, origins: str, says: str) -> None:
    with pytest.raises(CannotStart, match=says):
        middlewares(make_settings(cors_origins=origins))


async def test_a_plain_options_names_the_methods_that_there_are(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="off")
    answer = await client.options("/thing")
    assert (answer.status, answer.headers["Allow"]) == (204, "OPTIONS, POST")
    assert (await client.options("/nowhere")).status == 404
