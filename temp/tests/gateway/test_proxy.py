"""/api/avatar/webrtc/{path}: what is passed on, what is not, and that neither way leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from conftest import MakeSettings
from gateway_rig import ANSWER_SDP, Rig, gateway_rig

PATIENCE = 30.0
ELSEWHERE = [
    "", "health", "v1/avatars", "v1/sessions", "ws/1", "offer/", "/offer", "offer/x", "offers", "OFFER", "whep", "whep/", "whep//x",
    "../v1/avatars", "whep/../v1/avatars", "whep/%2e%2e/v1/avatars", "%2e%2e/v1/avatars", "..%2fv1%2favatars", "whep/..", "offer%00",
    "offer%0d%0aX-Evil:1", "whep/a%0d%0ab", "http://169.254.169.254/offer", "http:%2f%2fevil.example/offer", "//evil.example/offer",
    "offer;x", "offer%3fx", "whep/a/b/c/d", "whep/a.b", "whep\\a", "％2e",
]  # fmt: skip


@pytest.fixture
async def rig(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway_rig(make_settings, tmp_path, max_upload_mb=1) as rig:
        yield rig


async def test_an_offer_reaches_the_service_and_its_answer_the_client(rig: Rig) -> None:
    offer = {"sdp": "v=0", "type": "offer"}
    answer = await rig.client.post("/api/avatar/webrtc/offer", params={"avatar": "anna", "api_key": "k"}, json=offer)
    assert (answer.status_code, answer.json()) == (200, ANSWER_SDP)
    assert rig.service.bodies == [b'{"sdp":"v=0","type":"offer"}']
    assert dict(rig.service.requests[-1].query) == {"avatar": "anna"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_every_method_is_passed_on(rig: Rig, method: str) -> None:
    answer = await rig.client.request(method, "/api/avatar/webrtc/whep/anna")
    assert answer.status_code == 201
    assert rig.service.requests[-1].method == method


async def test_pages_may_ask_as_often_as_they_like_whether_somebody_speaks(make_settings: MakeSettings, tmp_path: Path) -> None:
    async with gateway_rig(make_settings, tmp_path, rate_limit="1/minute") as rig:
        assert {(await rig.client.get("/api/avatar/webrtc/is_speaking")).status_code for _ in range(3)} == {502}
        assert [(await rig.client.post("/api/avatar/webrtc/offer")).status_code for _ in range(2)] == [200, 429]


async def test_no_header_leaks_either_way(rig: Rig) -> None:
    sent = {
        "Authorization": "Bearer secret", "X-API-Key": "secret", "Cookie": "session=secret", "X-Internal-Secret": "guess",
        "Proxy-Authorization": "secret", "Referer": "http://127.0.0.1/?token=secret", "X-Anything": "1", "TE": "trailers",
        "X-Forwarded-For": "10.9.8.7", "X-Forwarded-Host": "evil.example", "Forwarded": "for=10.9.8.7", "Accept": "application/json",
    }  # fmt: skip
    answer = await rig.client.post("/api/avatar/webrtc/offer", json={}, headers=sent)
    received = rig.service.requests[-1].headers
    assert "secret" not in str(received)
    assert not {"Cookie", "X-Anything", "Te", "Forwarded", "X-Internal-Secret"} & set(received)
    assert (received["X-Forwarded-For"], received["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert (received["X-Forwarded-Host"], received["Accept"]) == (f"127.0.0.1:{rig.gateway.port}", "application/json")
    assert received["Host"] == f"127.0.0.1:{rig.service_server.port}"
    assert not {"Set-Cookie", "X-Inner"} & set(answer.headers)
    assert (answer.headers["ETag"], "inner" in answer.headers["Server"]) == ('"e"', False)


async def test_behind_a_trusted_proxy_the_service_learns_who_really_calls(make_settings: MakeSettings, tmp_path: Path) -> None:
    async with gateway_rig(make_settings, tmp_path, trusted_proxies=("127.0.0.1",)) as rig:
        await rig.client.post("/api/avatar/webrtc/offer", json={}, headers={"X-Forwarded-For": "203.0.113.9, 2001:db8::7"})
        assert rig.service.requests[-1].headers["X-Forwarded-For"] == "2001:db8::7"


async def test_nothing_else_is_passed_on(rig: Rig) -> None:
    for path in ELSEWHERE:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)  # as it stands: a client would tidy the path
        writer.write(f"GET /api/avatar/webrtc/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        status = int((await reader.readline()).split()[1])
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert (path, status) in {(path, 400), (path, 404)}
    assert rig.service.requests == []


async def test_a_body_is_passed_on_while_it_arrives(rig: Rig) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first "
        await asyncio.wait_for(rig.service.first_chunk.wait(), PATIENCE)
        yield b"second"

    answer = await rig.client.post("/api/avatar/webrtc/humanaudio", content=body())
    assert answer.json() == {"code": 0, "msg": "ok"}
    assert rig.service.bodies == [b"first second"]


async def test_an_answer_is_passed_on_while_it_arrives(rig: Rig) -> None:
    async with rig.client.stream("GET", "/api/avatar/webrtc/record") as answer:
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b"first"
        rig.service.may_answer.set()
        assert [chunk async for chunk in chunks] == [b"second"]


async def test_a_body_over_the_limit_is_a_413(rig: Rig) -> None:
    answer = await rig.client.post("/api/avatar/webrtc/humanaudio", content=b"x" * (1024**2 + 1))
    assert (answer.status_code, rig.service.bodies) == (413, [])


async def test_a_body_that_says_that_it_is_over_the_limit_is_not_waited_for(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
    writer.write(b"POST /api/avatar/webrtc/humanaudio HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1048577\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE)
    writer.close()
    await writer.wait_closed()
    assert (answer.split()[1], rig.service.requests) == (b"413", [])


async def test_nothing_is_made_up_about_a_body_and_no_compression_is_asked_for(rig: Rig) -> None:
    await rig.client.post("/api/avatar/webrtc/offer", content=b"{}", headers={"Accept-Encoding": "gzip, br"})
    received = rig.service.requests[-1].headers
    assert ("Content-Type" in received, received["Accept-Encoding"]) == (False, "identity")


async def test_a_service_that_breaks_off_is_a_502(rig: Rig) -> None:
    answer = await rig.client.get("/api/avatar/webrtc/is_speaking")
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:gpuserver:problem:lip-sync-service-failed")


async def test_a_service_that_breaks_off_in_its_answer_leaves_the_client_with_a_broken_one(rig: Rig) -> None:
    with pytest.raises(httpx.TransportError):
        async with rig.client.stream("GET", "/api/avatar/webrtc/record") as answer:
            chunks = answer.aiter_bytes()
            assert await anext(chunks) == b"first"
            rig.service.break_off()
            async for chunk in chunks:
                assert chunk == b"", "a second answer"


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/whep/anna/1", "/api/avatar/webrtc/whep/anna/1"),
        ("http://elsewhere.example/whep/anna/1", None),
        ("/v1/avatars", None),
        ("whep/../v1/avatars", None),
        ("http://[", None),
    ],
)
async def test_a_resource_of_the_service_is_named_as_the_client_reaches_it(rig: Rig, location: str, seen: str | None) -> None:
    answer = await rig.client.post("/api/avatar/webrtc/whep/anna", params={"location": location})
    assert answer.headers.get("Location") == seen


class SilentService:
    """Takes calls and answers none. called: a call has arrived; left: its caller has gone again."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.called.set()
        await reader.read()
        self.left.set()
        writer.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "webrtc/offer"),
        ("POST", "webrtc/is_speaking"),
        ("GET", "list"),
        ("GET", "preview/anna"),
        ("DELETE", "delete?name=anna"),
    ],
)
async def test_a_call_of_a_silent_service_ends_with_its_client(
    make_settings: MakeSettings, tmp_path: Path, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuserver.web.interim.INTERVAL_SECONDS", 0.02)
    service = SilentService()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, gateway_rig(make_settings, tmp_path, lipsync_service_url=f"http://127.0.0.1:{port}") as rig:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
        writer.write(f"{method} /api/avatar/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
        await asyncio.wait_for(service.called.wait(), PATIENCE)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(service.left.wait(), PATIENCE)
