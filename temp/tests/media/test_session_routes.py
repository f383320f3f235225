"""Sessions over HTTP: who may make them, how many there are, and how a browser connects to one."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from receiver import Receiver

from gpuserver.media import idle_stream
from gpuserver.media.picture_encoders import PictureEncoder, loop_encoder
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.wire import CreateSession

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)

MakeMedia = Callable[..., "Awaitable[MediaServer]"]


async def test_a_session_is_made_listed_shown_and_ended(media: MediaServer) -> None:
    created = await media.create(kb_id=3)
    session_id = created["session_id"]
    assert created["engine_url"] == f"ws://127.0.0.1:{media.client.port}/ws/{session_id}"
    assert (created["status"], created["avatar_id"]) == ("active", "demo")
    assert created["webrtc"]["iceServers"] == []

    listed = await (await media.client.get("/v1/sessions", headers=media.internal)).json()
    assert (listed["total"], listed["sessions"][0]["session_id"]) == (1, session_id)
    shown = await (await media.client.get(f"/v1/sessions/{session_id}", headers=media.internal)).json()
    assert (shown["tutor_id"], shown["student_id"], shown["kb_id"], shown["connected"]) == ("7", "s", "3", False)
    assert "engine_token" not in shown

    assert (await media.client.delete(f"/v1/sessions/{session_id}?reason=why", headers=media.internal)).status == 400
    assert (await media.client.delete(f"/v1/sessions/{session_id}", headers=media.internal)).status == 204
    for call in (media.client.get, media.client.delete):
        answer = await call(f"/v1/sessions/{session_id}", headers=media.internal)
        assert answer.status == 404
        assert (await answer.json())["type"] == "urn:gpuserver:problem:session-not-found"


async def test_an_avatars_idle_loop_is_encoded_before_its_first_browser_connects(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def make_encoder(mime_type: str, width: int, height: int, key_every: int) -> PictureEncoder:
        loop.call_soon_threadsafe(begun.set)
        return loop_encoder(mime_type, width, height, key_every)

    monkeypatch.setattr(idle_stream, "loop_encoder", make_encoder)
    await media.create()
    await asyncio.wait_for(begun.wait(), 10)


@pytest.mark.parametrize("headers", [{}, {"X-Internal-Secret": ""}, {"X-Internal-Secret": "wrong"}, {"X-Internal-Secret": "geheimnißvoll"}])
@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", ""), ("GET", "/x"), ("DELETE", "/x")])
async def test_sessions_need_the_internal_secret(media: MediaServer, headers: dict[str, str], method: str, path: str) -> None:
    answer = await media.client.request(method, f"/v1/sessions{path}", headers=headers, json={"tutor_id": 1, "student_id": 2})
    assert answer.status == 401
    assert answer.content_type == "application/problem+json"


async def test_fifty_calls_at_once_for_ten_slots_give_exactly_ten_sessions(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=10)
    body = {"tutor_id": 1, "student_id": 2, "avatar_id": "demo"}
    answers = await asyncio.gather(*[media.client.post("/v1/sessions", json=body, headers=media.internal) for _ in range(50)])
    assert Counter(answer.status for answer in answers) == {201: 10, 429: 40}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status == 429)
    health = await (await media.client.get("/health")).json()
    assert (health["active_sessions"], health["max_sessions"]) == (10, 10)


async def test_a_session_whose_client_has_left_before_it_was_there_ends_at_once(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, deleted = asyncio.Event(), asyncio.Event(), asyncio.Event()
    create, delete = SessionRegistry.create, SessionRegistry.delete

    async def create_slowly(registry: SessionRegistry, request: CreateSession, *, session_id: str | None = None) -> Session:
        begun.set()
        await may_end.wait()
        return await create(registry, request, session_id=session_id)

    async def note_deletion(registry: SessionRegistry, session_id: str, reason: str = "deleted") -> None:
        await delete(registry, session_id, reason)
        deleted.set()

    monkeypatch.setattr(SessionRegistry, "create", create_slowly)
    monkeypatch.setattr(SessionRegistry, "delete", note_deletion)
    body = b'{"tutor_id": 1, "student_id": 2, "avatar_id": "demo"}'
    _, writer = await asyncio.open_connection("127.0.0.1", media.client.port)
    secret = "".join(f"{name}: {value}\r\n" for name, value in media.internal.items())
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{secret}"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(30):
        await begun.wait()
        writer.close()
        await writer.wait_closed()
        assert (await media.client.get("/health")).status == 200  # the server has seen by now that the client has left
        may_end.set()
        await deleted.wait()
    health = await (await media.client.get("/health")).json()
    assert health["active_sessions"] == 0


async def test_an_unknown_avatar_is_said_and_leaves_the_slot_free(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=1)
    body = {"tutor_id": 1, "student_id": 2, "avatar_id": "nobody"}
    answer = await media.client.post("/v1/sessions", json=body, headers=media.internal)
    assert answer.status == 404
    await media.create()


@pytest.mark.parametrize("body", ["", "{", "[]", '{"tutor_id": 1}', '{"tutor_id": false, "student_id": 1}'])
async def test_a_malformed_session_is_refused(media: MediaServer, body: str) -> None:
    headers = {**media.internal, "Content-Type": "application/json"}
    assert (await media.client.post("/v1/sessions", data=body, headers=headers)).status == 400


async def test_a_browser_connects_and_sees_the_avatar_move_and_hears_nothing(media: MediaServer) -> None:
    session = await media.create()
    async with Receiver() as receiver:
        await receiver.connect(media.negotiation(session))
        await receiver.until(lambda: len(receiver.pictures) > 10 and len(receiver.sounds) > 20)
    assert not any(sound.audible for sound in receiver.sounds)
    assert all(picture.luma.std() > 5 for picture in receiver.pictures)


async def test_a_candidate_is_taken_and_a_malformed_one_refused(media: MediaServer) -> None:
    session = await media.create()
    path, token = f"/v1/sessions/{session['session_id']}/ice", {"token": session["engine_token"]}
    good = {"candidate": "candidate:1 1 udp 1 192.0.2.9 5000 typ host", "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": None}
    assert (await media.client.patch(path, json=good, params=token)).status == 204
    assert (await media.client.patch(path, json={"candidate": ""}, params=token)).status == 204
    assert (await media.client.patch(path, json={"candidate": "nonsense"}, params=token)).status == 400
    assert (await media.client.patch(path, json={"sdpMid": "0"}, params=token)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body"), [("POST", "offer", {"sdp": "v=0", "type": "offer"}), ("PATCH", "ice", {"candidate": ""})]
)
async def test_signalling_needs_the_sessions_own_token(media: MediaServer, method: str, path: str, body: dict[str, Any]) -> None:
    session, other = await media.create(), await media.create()
    address = f"/v1/sessions/{session['session_id']}/{path}"
    for headers in ({}, {"Authorization": f"Bearer {other['engine_token']}"}, {"Authorization": "Bearer"}, media.internal):
        assert (await media.client.request(method, address, json=body, headers=headers)).status == 401
    token = {"Authorization": f"Bearer {session['engine_token']}"}
    assert (await media.client.request(method, f"/v1/sessions/nobody/{path}", json=body, headers=token)).status == 404


async def test_damaged_offers_are_answered_in_time_and_leave_no_task(media: MediaServer) -> None:
    session = await media.create()
    path, token = f"/v1/sessions/{session['session_id']}/offer", {"token": session["engine_token"]}
    chance = random.Random(7)
    async with Receiver() as receiver:
        offer = await receiver.offer()
    before = asyncio.all_tasks()
    statuses = set()
    for _ in range(60):
        at = chance.randrange(len(offer))
        damaged = offer[:at] + chance.choice(["", "\0", "\r\n", "a=", "9" * 12, "ä", offer]) + offer[at + chance.randrange(80) :]
        async with asyncio.timeout(2):
            statuses.add((await media.client.post(path, json={"sdp": damaged, "type": "offer"}, params=token)).status)
    assert statuses == {200, 400}
    await media.client.delete(f"/v1/sessions/{session['session_id']}", headers=media.internal)
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=2)
    assert not left


async def test_an_offer_of_more_than_64_kb_is_refused(media: MediaServer) -> None:
    session = await media.create()
    path, token = f"/v1/sessions/{session['session_id']}/offer", {"token": session["engine_token"]}
    for size in (64_000, 900_000):
        answer = await media.client.post(path, json={"sdp": "a" * size, "type": "offer"}, params=token)
        assert answer.status == 413


async def test_the_configuration_names_the_browsers_turn_server_and_not_ours(make_media: MakeMedia) -> None:
    media = await make_media(
        webrtc_turn_server="turn:public.example:3478", webrtc_turn_server_local="10.0.0.1:3478", webrtc_turn_username="u"
    )
    text = await (await media.client.get("/v1/webrtc/config")).text()
    assert "turn:public.example:3478" in text
    assert not re.search(r"10\.0\.0\.1", text)
