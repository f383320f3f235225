"""Pages of other sites cannot call the server, also not under a rebound name."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.config import Settings
from gpuserver.errors import InvalidInput
from gpuserver.web.middleware import middlewares
from gpuserver.web.origin import public_url


def _app(settings: Settings, host: str | None = None) -> web.Application:
    async def ok(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application(middlewares=middlewares(settings, host=host))
    for path in ("/thing", "/health"):
        app.router.add_route("*", path, ok)
    return app


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost.evil.example:9000", "file://"]
)
async def test_a_page_of_another_site_cannot_change_anything(aiohttp_client: AiohttpClient, settings: Settings, origin: str) -> None:
    client = await aiohttp_client(_app(settings))
    answer = await client.post("/thing", headers={"Origin": origin})
    assert answer.status == 403
    assert (await answer.json())["type"] == "urn:gpuserver:problem:foreign-origin"


async def test_a_page_of_another_site_cannot_open_a_websocket(aiohttp_client: AiohttpClient, settings: Settings) -> None:
    client = await aiohttp_client(_app(settings))
    headers = {"Origin": "https://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await client.get("/thing", headers=headers)).status == 403


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:9000", "http://localhost:5173", "http://[::1]:9000"])
async def test_our_own_page_and_programs_can(aiohttp_client: AiohttpClient, settings: Settings, origin: str | None) -> None:
    client = await aiohttp_client(_app(settings))
    assert (await client.post("/thing", headers={"Origin": origin} if origin else {})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9000", "127.0.0.1.evil.example", "0.0.0.0:9000"])
async def test_a_rebound_name_reads_nothing_but_health(aiohttp_client: AiohttpClient, settings: Settings, host: str) -> None:
    client = await aiohttp_client(_app(settings))
    assert (await client.get("/thing", headers={"Host": host})).status == 403
    assert (await client.get("/health", headers={"Host": host})).status == 200


@pytest.mark.parametrize(("management", "own", "status"), [("0.0.0.0", "127.0.0.1", 403), ("127.0.0.1", "0.0.0.0", 200)])
async def test_every_server_goes_by_the_address_that_it_listens_on_itself(
    aiohttp_client: AiohttpClient, make_settings: MakeSettings, management: str, own: str, status: int
) -> None:
    client = await aiohttp_client(_app(make_settings(management_api_host=management, allow_insecure=True), host=own))
    assert (await client.get("/thing", headers={"Host": "192.0.2.7:8615"})).status == status


async def test_the_name_in_public_url_is_ours(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> None:
    client = await aiohttp_client(_app(make_settings(public_url="https://gpu.example.org")))
    headers = {"Host": "gpu.example.org", "Origin": "https://gpu.example.org"}
    assert (await client.post("/thing", headers=headers)).status == 200
    assert (await client.post("/thing", headers={"Origin": "http://localhost:3000"})).status == 200
    assert (await client.post("/thing", headers={**headers, "Origin": "http://localhost:3000"})).status == 403
    assert (await client.post("/thing", headers={**headers, "Origin": "https://other.example.org"})).status == 403


async def test_a_trusted_proxy_says_which_name_was_called(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> None:
    client = await aiohttp_client(_app(make_settings(trusted_proxies=("127.0.0.0/8",))))
    headers = {"X-Forwarded-Host": "gpu.example.org", "Origin": "https://gpu.example.org"}
    assert (await client.post("/thing", headers=headers)).status == 200


async def test_an_untrusted_proxy_says_nothing(aiohttp_client: AiohttpClient, settings: Settings) -> None:
    client = await aiohttp_client(_app(settings))
    headers = {"X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}
    assert (await client.post("/thing", headers=headers)).status == 403


@pytest.mark.parametrize("host", ["a b", "a/b", "user@host", "host:port", "[::1", "a?b", "a#b", "x" * 300 + ":99999"])
def test_a_host_header_that_is_no_host_is_refused(settings: Settings, host: str) -> None:
    with pytest.raises(InvalidInput):
        public_url(make_mocked_request("GET", "/", headers={"Host": host}), settings)


def test_public_url_wins_over_the_request_and_keeps_its_path(make_settings: MakeSettings) -> None:
    request = make_mocked_request("GET", "/", headers={"Host": "127.0.0.1:9000"})
    assert str(public_url(request, make_settings(public_url="https://a.example/gpu/"))) == "https://a.example/gpu"
    assert str(public_url(request, make_settings())) == "http://127.0.0.1:9000"
