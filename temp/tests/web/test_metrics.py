"""/metrics of any application: what is counted, under which names, and who may read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from prometheus_client.parser import text_string_to_metric_families
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.errors import AvatarNotFound
from gpuserver.web.keys import public
from gpuserver.web.metrics import add_metrics, watch_queue
from gpuserver.web.middleware import middlewares

KEY = "k" * 32

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def samples(client: Client, **headers: str) -> Samples:
    """The exposition as {(name, labels): value}."""
    answer = await client.get("/metrics", headers=headers)
    assert answer.status == 200, await answer.text()
    families = text_string_to_metric_families(await answer.text())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def requests_of(found: Samples, method: str, route: str, status: int) -> float:
    labels = (("method", method), ("route", route), ("status", str(status)))
    return found.get(("gpuserver_http_requests_total", labels), 0)


@pytest.fixture
def make_client(make_settings: MakeSettings, aiohttp_client: AiohttpClient) -> MakeClient:
    @public
    async def show(request: web.Request) -> web.Response:
        if request.match_info["name"] == "missing":
            raise AvatarNotFound("There is none.")
        if request.match_info["name"] == "moved":
            raise web.HTTPFound("/things/here")
        return web.Response(text="here")

    @public
    async def broken(_request: web.Request) -> web.Response:
        raise RuntimeError("a fault")

    @public
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return response

    @public
    async def socket(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.close()
        return response

    async def make(**settings: Any) -> Client:
        app = web.Application(middlewares=middlewares(make_settings(**settings)))
        add_metrics(app)
        watch_queue(app, "things", lambda: 7)
        app.router.add_get("/things/{name}", show)
        app.router.add_get("/broken", broken)
        app.router.add_get("/stream", stream)
        app.router.add_get("/socket", socket)
        return await aiohttp_client(app)

    return make


async def test_requests_are_counted_by_template_and_status_never_by_path(make_client: MakeClient) -> None:
    client = await make_client()
    for name in ("a", "b", "missing"):
        await client.get(f"/things/{name}")
    await client.get("/things/moved", allow_redirects=False)
    await client.get("/nowhere/secret-path")
    await client.delete("/things/a")
    await client.request("PROPFIND", "/things/a")
    found = await samples(client)
    template = "/things/{name}"
    assert [requests_of(found, "GET", template, status) for status in (200, 404, 302)] == [2, 1, 1]
    assert (
        requests_of(found, "GET", "none", 404) == requests_of(found, "DELETE", "none", 405) == requests_of(found, "other", "none", 405) == 1
    )
    assert found[("gpuserver_http_request_seconds_count", (("route", template),))] == 4
    assert not [name for name in found if "secret-path" in str(name) or "PROPFIND" in str(name)]


async def test_errors_are_counted_by_problem_type(make_client: MakeClient) -> None:
    client = await make_client()
    for path in ("/things/missing", "/things/missing", "/broken", "/nowhere"):
        await client.get(path)
    found = await samples(client)
    problems = {labels[0][1]: value for (name, labels), value in found.items() if name == "gpuserver_problems_total"}
    assert problems == {"avatar-not-found": 2, "internal-error": 1, "not-found": 1}


async def test_what_lasts_as_long_as_somebody_listens_has_no_duration(make_client: MakeClient) -> None:
    client = await make_client()
    await (await client.get("/stream")).read()
    async with client.ws_connect("/socket") as socket:
        await socket.receive()
    found = await samples(client)
    assert (requests_of(found, "GET", "/stream", 200), requests_of(found, "GET", "/socket", 101)) == (1, 1)
    assert not [name for name, labels in found if name == "gpuserver_http_request_seconds_count" and labels != (("route", "/metrics"),)]


async def test_queues_and_the_process_are_read_at_the_moment_of_the_request(make_client: MakeClient) -> None:
    found = await samples(await make_client())
    assert found[("gpuserver_queue_depth", (("queue", "things"),))] == 7
    assert found[("process_resident_memory_bytes", ())] > 1e6
    assert found[("process_open_fds", ())] > 3
    assert found[("gpuserver_http_requests_in_progress", ())] == 1


async def test_two_applications_in_a_process_count_for_themselves(make_client: MakeClient) -> None:
    one, two = await make_client(), await make_client()
    await one.get("/things/a")
    assert requests_of(await samples(one), "GET", "/things/{name}", 200) == 1
    assert requests_of(await samples(two), "GET", "/things/{name}", 200) == 0


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "x-real-ip", "Via"])
async def test_a_proxy_on_this_machine_opens_metrics_to_nobody(make_client: MakeClient, header: str) -> None:
    client = await make_client()
    assert (await client.get("/metrics", headers={header: "203.0.113.7"})).status == 403
    protected = await make_client(api_keys=(KEY,))
    assert (await protected.get("/metrics", headers={header: "203.0.113.7"})).status == 401
    assert await samples(protected, **{header: "203.0.113.7", "Authorization": f"Bearer {KEY}"})


async def test_this_machine_needs_no_key_and_meets_no_rate_limit(make_client: MakeClient) -> None:
    client = await make_client(api_keys=(KEY,), rate_limit="1/hour")
    for _ in range(3):
        assert await samples(client)


async def test_the_openmetrics_format_is_spoken_where_it_is_asked_for(make_client: MakeClient) -> None:
    answer = await (await make_client()).get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert (await answer.text()).endswith("# EOF\n")
