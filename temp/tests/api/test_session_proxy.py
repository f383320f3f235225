"""/v1/sessions…: passed on to the media server, with addresses that the client can reach."""

from __future__ import annotations

import asyncio

import pytest
from api_pair import Pair, make_pair
from conftest import MakeSettings
from fake_media_server import TOKEN
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from structlog.testing import capture_logs
from yarl import URL

PATIENCE = 30.0
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}


async def test_a_session_is_created_listed_shown_and_deleted(pair: Pair) -> None:
    answer = await pair.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": "s", "avatar_id": "a1", "voice": "v"})
    assert (answer.status, answer.headers["Location"]) == (201, "/v1/sessions/s1")
    created = await answer.json()
    assert created["engine_url"] == f"ws://127.0.0.1:{pair.client.port}/ws/s1"
    assert (created["engine_token"], created["status"]) == (TOKEN, "active")
    assert created["webrtc"] == {"iceServers": [], "iceTransportPolicy": "all", "publicIp": None, "portRange": None}
    assert (pair.media.created[0].tutor_id, pair.media.created[0].voice) == ("1", "v")

    assert (await (await pair.client.get("/v1/sessions")).json())["total"] == 1
    assert (await (await pair.client.get("/v1/sessions/s1")).json())["avatar_id"] == "a1"
    deleted = await pair.client.delete("/v1/sessions/s1")
    assert (deleted.status, await deleted.read()) == (204, b"")
    gone = await pair.client.get("/v1/sessions/s1")
    assert (gone.status, gone.content_type) == (404, "application/problem+json")
    assert (await gone.json())["type"] == "urn:gpuserver:problem:session-not-found"


@pytest.mark.parametrize(
    ("public_url", "engine_url"), [("https://gpu.example.org", "wss://gpu.example.org/ws/s1"), ("http://a.b:81/x/", "ws://a.b:81/x/ws/s1")]
)
async def test_engine_url_is_built_on_public_url(
    aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer, make_settings: MakeSettings, public_url: str, engine_url: str
) -> None:
    pair = await make_pair(aiohttp_client, aiohttp_server, make_settings, public_url=public_url)
    answer = await pair.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2})
    assert (await answer.json())["engine_url"] == engine_url


@pytest.mark.parametrize(("trusted", "engine_url"), [(("127.0.0.1",), "wss://gpu.example.org/ws/s1"), ((), None)])
async def test_forwarded_headers_count_from_trusted_proxies_only(
    aiohttp_client: AiohttpClient,
    aiohttp_server: AiohttpServer,
    make_settings: MakeSettings,
    trusted: tuple[str, ...],
    engine_url: str | None,
) -> None:
    pair = await make_pair(aiohttp_client, aiohttp_server, make_settings, trusted_proxies=trusted)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "gpu.example.org"}
    answer = await pair.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2}, headers=headers)
    assert (await answer.json())["engine_url"] == (engine_url or f"ws://127.0.0.1:{pair.client.port}/ws/s1")


async def test_a_session_whose_client_has_left_before_it_was_there_is_deleted(pair: Pair) -> None:
    pair.media.may_create.clear()
    body = b'{"tutor_id": 1, "student_id": 2}'
    _, writer = await asyncio.open_connection("127.0.0.1", pair.client.port)
    head = "POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(PATIENCE):
        while not pair.media.created:  # noqa: ASYNC110 - the fake tells by its list
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        assert (await pair.client.get("/health")).status == 200  # the server has seen by now that the client has left
        pair.media.may_create.set()
        await pair.media.ended.wait()
    assert pair.media.sessions == {}


async def test_full_is_passed_on_with_retry_after(pair: Pair) -> None:
    await pair.new_session()
    await pair.new_session()
    answer = await pair.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2})
    assert (answer.status, answer.headers["Retry-After"], answer.content_type) == (429, "9", "application/problem+json")


@pytest.mark.parametrize(
    "body", [{}, {"tutor_id": True, "student_id": 1}, {"tutor_id": 1}, {"tutor_id": 1, "student_id": 1, "avatar_id": "a/b"}]
)
async def test_a_bad_body_is_refused_before_the_media_server_sees_it(pair: Pair, body: dict[str, object]) -> None:
    assert (await pair.client.post("/v1/sessions", json=body)).status == 400
    assert pair.media.created == []


async def test_unknown_fields_are_ignored_and_logged(pair: Pair) -> None:
    with capture_logs() as logs:
        await pair.new_session(llm_endpoint="x")
    assert [line["fields"] for line in logs if line["event"] == "unknown_fields_ignored"] == [["llm_endpoint"]]


@pytest.mark.parametrize("session_id", ["..%2fsessions", "%2e%2e", "a%00", "x" * 65, "%2Fhealth"])
async def test_a_session_id_never_leaves_its_place_in_the_address(pair: Pair, session_id: str) -> None:
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/offer"), ("PATCH", "/ice")):
        answer = await pair.client.request(method, URL(f"/v1/sessions/{session_id}{suffix}", encoded=True))
        assert answer.status == 404, (method, suffix)


async def test_offer_and_candidates_are_carried_with_the_browsers_token(pair: Pair) -> None:
    session_id = await pair.new_session()
    path = f"/v1/sessions/{session_id}"
    offer = {"sdp": "offer", "type": "offer"}
    answer = await pair.client.post(f"{path}/offer", json=offer, headers={"Authorization": f"Bearer {TOKEN}"})
    assert await answer.json() == {"sdp": "answer", "type": "answer"}
    ice = await pair.client.patch(f"{path}/ice?token={TOKEN}", json={"candidate": ""})
    assert (ice.status, await ice.read()) == (204, b"")
    assert pair.media.signals == [("POST", session_id, offer), ("PATCH", session_id, {"candidate": ""})]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_a_wrong_token_is_a_401_and_the_internal_secret_does_not_help(pair: Pair, headers: dict[str, str]) -> None:
    session_id = await pair.new_session()
    answer = await pair.client.post(f"/v1/sessions/{session_id}/offer", json={"sdp": "o", "type": "offer"}, headers=headers)
    assert (answer.status, answer.content_type) == (401, "application/problem+json")


@pytest.mark.parametrize("token", ["%00", "%01", "%0d%0aX: y", "%ff", "a b"])
async def test_a_token_that_cannot_stand_in_a_header_is_a_401(pair: Pair, token: str) -> None:
    session_id = await pair.new_session()
    for method, path in (("POST", f"/v1/sessions/{session_id}/offer"), ("PATCH", f"/v1/sessions/{session_id}/ice")):
        address = URL(f"{path}?token={token.replace(' ', '%20')}", encoded=True)
        answer = await pair.client.request(method, address, json={"sdp": "o", "type": "offer"})
        assert (answer.status, answer.content_type) == (401, "application/problem+json")
    assert pair.media.signals == []


async def test_an_offer_too_large_is_a_413(pair: Pair) -> None:
    session_id = await pair.new_session()
    answer = await pair.client.post(f"/v1/sessions/{session_id}/offer", json={"sdp": "x" * 200_000, "type": "offer"})
    assert answer.status == 413


@pytest.mark.parametrize("path", ["/v1/webrtc/config", "/api/webrtc/config"])
async def test_the_webrtc_configuration_has_two_addresses(pair: Pair, path: str) -> None:
    assert (await (await pair.client.get(path)).json())["iceTransportPolicy"] == "all"


async def test_a_media_server_that_is_down_is_a_503_with_retry_after(pair: Pair) -> None:
    session_id = await pair.new_session()
    await pair.media_server.close()
    calls = [
        pair.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2}),
        pair.client.get("/v1/sessions"),
        pair.client.delete(f"/v1/sessions/{session_id}"),
        pair.client.post(f"/v1/sessions/{session_id}/offer", json={"sdp": "o", "type": "offer"}),
        pair.client.get(f"/ws/{session_id}", headers=UPGRADE),
    ]
    for answer in await asyncio.gather(*calls):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert (await answer.json())["type"] == "urn:gpuserver:problem:media-server-down"


async def test_an_avatar_shown_by_a_session_of_the_media_server_is_in_use(pair: Pair) -> None:
    session_id = await pair.new_session(avatar_id="demo")
    pair.manager.add("demo")
    answer = await pair.client.delete("/v1/avatars/demo")
    assert (answer.status, (await answer.json())["sessions"]) == (409, [session_id])
    assert (await pair.client.delete("/v1/avatars/demo?force=true")).status == 204
    assert pair.media.sessions == {}
    assert pair.media.ends == ["avatar deleted"]


async def test_a_client_that_ends_a_session_cannot_name_the_reason(pair: Pair) -> None:
    session_id = await pair.new_session()
    assert (await pair.client.delete(f"/v1/sessions/{session_id}?reason=avatar%20deleted")).status == 204
    assert pair.media.ends == [None]


async def test_avatars_are_served_and_deleted_while_the_media_server_is_down(pair: Pair) -> None:
    pair.manager.add("demo")
    await pair.media_server.close()
    assert (await (await pair.client.get("/v1/avatars")).json())["avatars"] == ["demo"]
    assert (await pair.client.delete("/v1/avatars/demo")).status == 204
