"""/ws/{session_id}: messages and close codes both ways."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType
from api_pair import Pair
from fake_media_server import TOKEN
from yarl import URL

from gpuserver.web.relay import MESSAGE_LIMIT


async def _connect(pair: Pair, prefix: str = "/ws") -> aiohttp.ClientWebSocketResponse:
    session_id = await pair.new_session()
    return await pair.client.ws_connect(f"{prefix}/{session_id}?token={TOKEN}")


@pytest.mark.parametrize("prefix", ["/ws", "/ws/ws"])
async def test_text_and_bytes_are_carried_both_ways_in_order(pair: Pair, prefix: str) -> None:
    socket = await _connect(pair, prefix)
    for number in range(200):
        await socket.send_str(f"{number} 你好")
    assert [await socket.receive_str() for _ in range(200)] == [f"{number} 你好" for number in range(200)]
    await socket.send_bytes(b"\0\xff")
    assert await socket.receive_bytes() == b"\0\xff"
    await socket.close()


@pytest.mark.parametrize("code", [1000, 1008, 1011, 3000, 4001])
async def test_the_clients_close_code_reaches_the_media_server(pair: Pair, code: int) -> None:
    socket = await _connect(pair)
    await socket.close(code=code)
    async with asyncio.timeout(10):
        assert await pair.media.closed_with.get() == code


@pytest.mark.parametrize("code", [1000, 1008, 1012, 4001])
async def test_the_media_servers_close_code_and_reason_reach_the_client(pair: Pair, code: int) -> None:
    socket = await _connect(pair)
    await socket.send_str(f"close {code}")
    message = await socket.receive(timeout=10)
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, code, "as asked")


@pytest.mark.parametrize("how", ["die", "leave"])
async def test_a_media_server_that_goes_is_a_lost_session_and_1012(pair: Pair, how: str) -> None:
    socket = await _connect(pair)
    await socket.send_str(how)
    event = await socket.receive_json(timeout=10)
    assert event["type"] == "session_lost"
    assert "new session" in event["reason"]
    message = await socket.receive(timeout=10)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)


async def test_a_client_that_vanishes_ends_the_other_side(pair: Pair) -> None:
    session_id = await pair.new_session()
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(pair.client.make_url(f"/ws/{session_id}?token={TOKEN}"))
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        connection = socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
    async with asyncio.timeout(10):
        assert await pair.media.closed_with.get() == 1000


@pytest.mark.parametrize(
    ("session_id", "token", "status"),
    [
        ("s1", "wrong", 401),
        ("s1", "", 401),
        ("s1", "%00", 401),
        ("s1", "%01", 401),
        ("s1", "%0d%0aa:b", 401),
        ("s9", TOKEN, 404),
        ("%2e%2e", TOKEN, 404),
    ],
)
async def test_a_websocket_without_its_session_or_token_is_refused(pair: Pair, session_id: str, token: str, status: int) -> None:
    await pair.new_session()
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await pair.client.ws_connect(URL(f"/ws/{session_id}?token={token}", encoded=True))
    assert caught.value.status == status


async def test_a_page_of_another_site_gets_no_websocket(pair: Pair) -> None:
    session_id = await pair.new_session()
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await pair.client.ws_connect(f"/ws/{session_id}?token={TOKEN}", headers={"Origin": "https://evil.example"})
    assert caught.value.status == 403


async def test_a_plain_get_is_told_that_this_is_a_websocket(pair: Pair) -> None:
    session_id = await pair.new_session()
    answer = await pair.client.get(f"/ws/{session_id}?token={TOKEN}")
    assert (answer.status, answer.content_type) == (426, "application/problem+json")


async def test_a_message_too_large_closes_with_1009(pair: Pair) -> None:
    socket = await _connect(pair)
    await socket.send_str("x" * (MESSAGE_LIMIT + 1))
    message = await socket.receive(timeout=10)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)


async def test_a_client_that_does_not_read_holds_back_the_sender_and_loses_nothing(pair: Pair) -> None:
    """The echo of what the client sends comes back through the relay: when nobody reads it, sending stops."""
    socket = await _connect(pair)
    sent = 0

    async def send_without_reading() -> None:
        nonlocal sent
        for number in range(200):
            await socket.send_str(f"{number} ".ljust(900_000))
            sent += 1

    sending = asyncio.create_task(send_without_reading())
    done, _ = await asyncio.wait([sending], timeout=1.0)
    assert not done, "180 MB were taken without anyone reading"
    for number in range(sent):
        assert (await socket.receive_str()).startswith(f"{number} ")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await socket.close()


async def test_a_stopping_management_api_says_that_it_goes_away(pair: Pair) -> None:
    socket = await _connect(pair)
    closing = asyncio.create_task(pair.client.server.close())
    message = await socket.receive(timeout=10)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await closing
