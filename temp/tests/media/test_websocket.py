"""/ws/{session_id}: what a client may send, what it gets, and how the socket ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, WSServerHandshakeError
from aiortc import RTCPeerConnection
from receiver import Receiver

from gpuserver.web.rate_limit import Rate

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)

MakeMedia = Callable[..., "Awaitable[MediaServer]"]
LONG = "This goes on and on and on. " * 10
LONG_SECONDS = 7 * 10 * 0.2  # as the fake voice says it


async def event(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next event of this kind; the others before it are skipped."""
    async with asyncio.timeout(5):
        while True:
            message = await socket.receive_json()
            if message["type"] == kind:
                return dict(message)


async def test_ping_gets_pong(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    await socket.send_json({"type": "ping"})
    assert await event(socket, "pong") == {"type": "pong"}


@pytest.mark.parametrize("prefix", ["/ws/", "/ws/ws/"])
@pytest.mark.parametrize("bearer", [True, False])
async def test_both_addresses_take_the_token_in_both_ways(media: MediaServer, prefix: str, bearer: bool) -> None:
    session = await media.create()
    token = session["engine_token"]
    path = prefix + session["session_id"] + ("" if bearer else f"?token={token}")
    socket = await media.client.ws_connect(path, headers={"Authorization": f"Bearer {token}"} if bearer else {})
    await socket.send_json({"type": "ping"})
    assert (await event(socket, "pong"))["type"] == "pong"


@pytest.mark.parametrize("token", ["", "?token=", "?token=wrong", "?token=ä", "?engine_token=x"])
async def test_a_wrong_token_is_refused_before_the_upgrade(media: MediaServer, token: str) -> None:
    session = await media.create()
    with pytest.raises(WSServerHandshakeError) as refused:
        await media.client.ws_connect(f"/ws/{session['session_id']}{token}")
    assert refused.value.status == 401


async def test_the_token_of_another_session_is_refused(media: MediaServer) -> None:
    session, other = await media.create(), await media.create()
    with pytest.raises(WSServerHandshakeError) as refused:
        await media.client.ws_connect(f"/ws/{session['session_id']}?token={other['engine_token']}")
    assert refused.value.status == 401


async def test_an_unknown_session_is_not_found(media: MediaServer) -> None:
    session = await media.create()
    with pytest.raises(WSServerHandshakeError) as refused:
        await media.client.ws_connect(f"/ws/nobody?token={session['engine_token']}")
    assert refused.value.status == 404


async def test_a_question_is_answered_in_text_without_a_picture(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    await socket.send_json({"type": "ask", "text": "What is it?"})
    assert (await event(socket, "notice"))["code"] == "no_picture"
    assert (await event(socket, "text_complete"))["text"] == media.model.script
    assert media.model.questions[0][-1].content == "What is it?"


@pytest.mark.parametrize("kind", ["text", "text_webrtc"])
async def test_the_existing_web_clients_messages_are_questions(media: MediaServer, kind: str) -> None:
    socket = await media.socket(await media.create())
    await socket.send_json({"type": kind, "content": "What is it?", "something": "else"})
    await event(socket, "text_complete")
    assert media.model.questions[0][-1].content == "What is it?"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"ping"',
        '{"type": "dance"}',
        '{"type": "ask"}',
        '{"type": "ask", "text": 7}',
        '{"type": "ask", "text": ""}',
        '{"type": "ask", "text": "  \\n"}',
        '{"type": "say", "text": "x", "volume": 11}',
        '{"type": "webrtc_offer", "sdp": "v=0"}',
        '{"type": "webrtc_ice_candidate", "candidate": {"candidate": "nonsense"}}',
    ],
)
async def test_an_invalid_message_gets_a_problem_and_the_socket_stays_open(media: MediaServer, text: str) -> None:
    socket = await media.socket(await media.create())
    await socket.send_str(text)
    problem = (await event(socket, "error"))["error"]
    assert problem["status"] == 400
    assert problem["type"].startswith("urn:gpuserver:problem:")
    assert problem["advice"]
    await socket.send_json({"type": "ping"})
    await event(socket, "pong")


async def test_a_client_may_choose_another_model_from_the_next_question_on(media: MediaServer) -> None:
    socket = await media.socket(await media.create(model="first"))
    for message in (
        {"type": "ask", "text": "One?"},
        {"type": "configure", "model": "second", "rate": 1.5},
        {"type": "ask", "text": "Two?"},
    ):
        await socket.send_json(message)
        if message["type"] == "ask":
            await event(socket, "trace")
    assert media.model.models == ["first", "second"]


@pytest.mark.parametrize("wish", [{"rate": 0.4}, {"rate": 2.1}, {"voice": "x" * 201}, {"volume": 1.0}])
async def test_what_no_voice_can_do_is_refused(media: MediaServer, wish: dict[str, object]) -> None:
    socket = await media.socket(await media.create())
    await socket.send_json({"type": "configure", **wish})
    assert (await event(socket, "error"))["error"]["status"] == 400


async def test_a_binary_frame_is_not_understood(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    await socket.send_bytes(b'{"type": "ping"}')
    assert "text frames" in (await event(socket, "error"))["error"]["detail"]


async def test_a_message_of_more_than_256_kb_ends_the_socket_and_not_the_session(media: MediaServer) -> None:
    session = await media.create()
    socket = await media.socket(session)
    await socket.send_str("x" * (256 * 1024 + 1))
    assert (await socket.receive(timeout=5)).type is WSMsgType.CLOSE
    assert socket.close_code == 1009
    again = await media.socket(session)
    await again.send_json({"type": "ping"})
    await event(again, "pong")


async def test_all_sockets_of_a_session_get_its_events(media: MediaServer) -> None:
    session = await media.create()
    first, second = await media.socket(session), await media.socket(session)
    await first.send_json({"type": "ask", "text": "What is it?"})
    for socket in (first, second):
        assert (await event(socket, "text_complete"))["text"] == media.model.script


@pytest.mark.parametrize(("query", "reason"), [("", "deleted"), ("?reason=avatar%20deleted", "avatar deleted")])
async def test_a_deleted_session_says_so_and_closes_with_its_own_code(media: MediaServer, query: str, reason: str) -> None:
    session = await media.create()
    socket = await media.socket(session)
    await media.client.delete(f"/v1/sessions/{session['session_id']}{query}", headers=media.internal)
    assert (await event(socket, "session_lost"))["reason"] == reason
    assert (await socket.receive(timeout=5)).type is WSMsgType.CLOSE
    assert socket.close_code == 4404


async def test_an_idle_session_ends(make_media: MakeMedia) -> None:
    media = await make_media(session_timeout_seconds=0.05)
    socket = await media.socket(await media.create())
    assert (await event(socket, "session_lost"))["reason"] == "idle"
    assert (await socket.receive(timeout=5)).type is WSMsgType.CLOSE
    assert socket.close_code == 4404


async def test_a_shutdown_says_that_the_session_is_lost_and_closes_with_1012(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    closing = asyncio.create_task(media.client.server.close())
    assert (await event(socket, "session_lost"))["reason"] == "shutdown"
    message = await socket.receive(timeout=5)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
    await socket.close()
    await closing


async def connect_over(socket: ClientWebSocketResponse, receiver: Receiver) -> list[dict[str, Any]]:
    """Signalling over the WebSocket alone; our own candidates, until their end."""
    candidates: list[dict[str, Any]] = []

    async def negotiate(sdp: str) -> str:
        await socket.send_json({"type": "webrtc_offer", "sdp": sdp})
        answer = await event(socket, "webrtc_answer")
        while (candidate := (await event(socket, "webrtc_ice_candidate"))["candidate"]) is not None:
            candidates.append(candidate)
        return str(answer["sdp"])

    await receiver.connect(negotiate)
    await socket.send_json({"type": "webrtc_ice_candidate", "candidate": None})
    return candidates


async def test_a_whole_call_over_the_websocket(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    async with Receiver() as receiver:
        candidates = await connect_over(socket, receiver)
        assert candidates
        assert all(candidate["candidate"].startswith("candidate:") for candidate in candidates)
        await socket.send_json({"type": "say", "text": "Hello there my dear student"})
        await receiver.until(lambda: any(sound.audible for sound in receiver.sounds))
        await event(socket, "speech_started")
        ended = await event(socket, "speech_ended")
        assert ended["heard"] == len("Hello there my dear student")
        marks = (await event(socket, "trace"))["marks"]
        assert marks["first_sound"] <= marks["first_packet"] <= marks["done"]
        # Five words of 0.2 s are 50 pieces of 20 ms; the last ones are still on their way.
        await receiver.until(lambda: sum(sound.audible for sound in receiver.sounds) >= 49)


async def test_a_question_right_behind_the_offer_is_answered_aloud(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    async with Receiver() as receiver:

        async def negotiate(sdp: str) -> str:
            await socket.send_json({"type": "webrtc_offer", "sdp": sdp})
            await socket.send_json({"type": "ask", "text": "What is it?"})
            return str((await event(socket, "webrtc_answer"))["sdp"])

        await receiver.connect(negotiate)
        await receiver.until(lambda: any(sound.audible for sound in receiver.sounds))
        assert (await event(socket, "speech_ended"))["text"] == media.model.script


async def test_an_interrupt_does_not_wait_for_an_offer_that_is_being_answered(media: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    create_answer = RTCPeerConnection.createAnswer

    async def slow(connection: RTCPeerConnection) -> Any:
        begun.set()
        await may_go_on.wait()
        return await create_answer(connection)

    socket = await media.socket(await media.create())
    async with Receiver() as receiver:
        offer = await receiver.offer()
        monkeypatch.setattr(RTCPeerConnection, "createAnswer", slow)
        await socket.send_json({"type": "webrtc_offer", "sdp": offer})
        await begun.wait()
        await socket.send_json({"type": "ask", "text": "What is it?"})
        await socket.send_json({"type": "interrupt"})
        assert (await event(socket, "interrupted"))["turn"] == 1
        may_go_on.set()
        assert (await event(socket, "webrtc_answer"))["sdp"]


async def test_a_client_that_leaves_while_its_offer_is_being_answered_leaves_no_peer(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never(_connection: RTCPeerConnection) -> None:
        begun.set()
        await asyncio.Event().wait()

    session = await media.create()
    socket = await media.socket(session)
    async with Receiver() as receiver:
        offer = await receiver.offer()
        monkeypatch.setattr(RTCPeerConnection, "createAnswer", never)
        await socket.send_json({"type": "webrtc_offer", "sdp": offer})
        await begun.wait()
        await socket.close()
    monkeypatch.undo()
    again = await media.socket(session)
    async with Receiver() as receiver:
        await connect_over(again, receiver)  # the line is free


async def test_an_interrupt_silences_what_the_browser_receives(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    async with Receiver() as receiver:
        await connect_over(socket, receiver)
        await socket.send_json({"type": "say", "text": LONG})
        await receiver.until(lambda: sum(sound.audible for sound in receiver.sounds) > 20)
        await socket.send_json({"type": "interrupt"})
        assert (await event(socket, "interrupted"))["ms"] >= 0
        await receiver.until(lambda: not any(sound.audible for sound in receiver.sounds[-25:]), within=30)
    heard = sum(sound.audible for sound in receiver.sounds)
    assert heard * 0.020 < LONG_SECONDS / 2


async def test_a_new_question_replaces_what_is_being_said(media: MediaServer) -> None:
    socket = await media.socket(await media.create())
    async with Receiver() as receiver:
        await connect_over(socket, receiver)
        await socket.send_json({"type": "say", "text": LONG})
        await event(socket, "speech_started")
        await socket.send_json({"type": "ask", "text": "Stop?"})
        assert (await event(socket, "interrupted"))["turn"] == 1
        assert (await event(socket, "text_complete"))["turn"] == 2


async def test_a_browser_comes_back_to_the_same_conversation(media: MediaServer) -> None:
    session = await media.create()
    socket = await media.socket(session)
    async with Receiver() as first:
        await connect_over(socket, first)
        await socket.send_json({"type": "ask", "text": "My name is Ada."})
        await event(socket, "speech_ended")
    again = await media.socket(session)
    async with Receiver() as second:
        await connect_over(again, second)
        await again.send_json({"type": "ask", "text": "What is my name?"})
        await second.until(lambda: any(sound.audible for sound in second.sounds))
    said = [message.content for message in media.model.questions[-1]]
    assert "My name is Ada." in said
    assert media.model.script in said


async def test_questions_beyond_the_limit_are_refused_and_the_rest_goes_on(make_media: MakeMedia) -> None:
    media = await make_media(rate_limit="3/hour")
    session = await media.create()
    sockets = [await media.socket(session), await media.socket(session)]  # they are counted together
    for socket in [*sockets, sockets[0]]:
        await socket.send_json({"type": "ask", "text": "Why?"})
        await event(socket, "text_complete")
    await sockets[1].send_json({"type": "say", "text": "One too many."})
    error = (await event(sockets[1], "error"))["error"]
    assert (error["status"], error["type"]) == (429, "urn:gpuserver:problem:rate-limited")
    await sockets[1].send_json({"type": "interrupt"})
    await sockets[1].send_json({"type": "ping"})
    assert (await event(sockets[1], "pong"))["type"] == "pong"
    other = await media.socket(await media.create())
    await other.send_json({"type": "ask", "text": "And I?"})
    assert (await event(other, "text_complete"))["text"]


async def test_a_flood_of_messages_closes_the_socket(make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.media.message_limits.FLOOD", Rate(calls=5, seconds=3600))
    media = await make_media(rate_limit="off")
    socket = await media.socket(await media.create())
    for _ in range(6):
        await socket.send_json({"type": "ping"})
    async with asyncio.timeout(5):
        kinds = [message.type async for message in socket]
    assert (len(kinds), socket.close_code) == (5, WSCloseCode.POLICY_VIOLATION)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1e999",
        "[" * 100_000,
        '{"type":' * 20_000,
        '{"type": "ping", "type": "interrupt"}',
        '{"type": "ask", "text": "a\\u0000b"}',
        '{"type": "ask", "text": "\\ud800"}',
        '{"type": "ask", "text": NaN}',
        '{"type": "ask", "text": ' + "9" * 5000 + "}",
        '{"type": "configure", "rate": 1e999}',
    ],
)
async def test_poisoned_json_is_an_error_and_the_socket_lives(media: MediaServer, text: str) -> None:
    socket = await media.socket(await media.create())
    await socket.send_str(text)
    assert (await event(socket, "error"))["error"]["status"] == 400
    await socket.send_json({"type": "ping"})
    assert (await event(socket, "pong"))["type"] == "pong"
