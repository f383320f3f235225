"""The router: every call reaches the worker that has the session, new sessions the one with the fewest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import WSMsgType
from conftest import MakeSettings
from fake_workers import INTERNAL, SECRET, TOKEN

from gpuserver.media_router import placement
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.session_names import new_number, new_session_id, worker_of_id, worker_of_number
from gpuserver.web.auth import INTERNAL_HEADER
from gpuserver.web.keys import stated_access

if TYPE_CHECKING:
    from router_rig import MakeRig, Rig

pytest_plugins = ("router_rig",)

KEY = "k" * 32


async def test_new_sessions_go_to_the_worker_with_the_fewest_and_their_names_tell_it(rig: Rig) -> None:
    created = [await rig.create() for _ in range(4)]
    assert [worker_of_id(each["session_id"]) for each in created] == [1, 2, 1, 2]
    assert created[0]["engine_url"] == f"ws://127.0.0.1:{rig.client.port}/ws/{created[0]['session_id']}"
    answer = await rig.client.delete(f"/v1/sessions/{created[0]['session_id']}", headers=INTERNAL)
    assert answer.status == 204
    assert worker_of_id((await rig.create())["session_id"]) == 1


async def test_max_sessions_counts_over_all_workers_also_those_that_are_being_made(make_rig: MakeRig) -> None:
    rig = await make_rig(max_sessions=5)
    for worker in rig.workers:
        worker.may_create.clear()
    calls = [
        asyncio.create_task(rig.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2}, headers=INTERNAL)) for _ in range(12)
    ]
    refused = [answer for _ in range(7) if (answer := await _first_of(calls))]
    assert {(answer.status, answer.headers["Retry-After"]) for answer in refused} == {(429, "10")}
    for worker in rig.workers:
        worker.may_create.set()
    assert {(await call).status for call in calls} == {201}
    assert sorted(len(worker.sessions) for worker in rig.workers) == [2, 3]


async def _first_of(calls: list[asyncio.Task[aiohttp.ClientResponse]]) -> aiohttp.ClientResponse:
    """The next call that is answered, which leaves the list."""
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    call = done.pop()
    calls.remove(call)
    return call.result()


async def test_the_list_is_that_of_all_workers_the_oldest_first(rig: Rig) -> None:
    created = [(await rig.create())["session_id"] for _ in range(3)]
    listed = await (await rig.client.get("/v1/sessions", headers=INTERNAL)).json()
    assert (listed["total"], [each["session_id"] for each in listed["sessions"]]) == (3, created)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sessions/{}/offer"),
        ("PATCH", "/v1/sessions/{}/ice"),
        ("PATCH", "/whep/sessions/{}"),
        ("DELETE", "/whep/sessions/{}"),
        ("POST", "/whep/sessions/{}/say"),
        ("POST", "/whep/sessions/{}/ask"),
        ("POST", "/whep/sessions/{}/interrupt"),
    ],
)
async def test_what_concerns_a_session_reaches_its_worker_with_its_token_and_without_other_credentials(
    make_rig: MakeRig, method: str, path: str
) -> None:
    rig = await make_rig(api_keys=KEY)
    session_id = new_session_id(2)
    url = path.format(session_id)
    answer = await rig.client.request(
        method, url, params={"token": TOKEN}, data=b"{}", headers={"X-API-Key": KEY, "Content-Type": "text/x", "If-Match": '"a"'}
    )
    assert (answer.status, await answer.json(), answer.headers["ETag"]) == (200, {"worker": 2}, '"e"')
    (seen,) = rig.workers[1].seen
    assert (seen.method, seen.path, seen.query, seen.body) == (method, url, {}, b"{}")
    assert (seen.headers["Authorization"], seen.headers[INTERNAL_HEADER]) == (f"Bearer {TOKEN}", SECRET)
    assert (seen.headers["Content-Type"], seen.headers["If-Match"]) == ("text/x", '"a"')
    assert "X-API-Key" not in seen.headers


async def test_whep_tells_where_the_session_is_and_every_ice_server(rig: Rig) -> None:
    answer = await rig.client.post("/whep/demo", data=b"v=0", headers={"Content-Type": "application/sdp"})
    assert (answer.status, await answer.text()) == (201, "answer")
    assert answer.headers.getall("Link") == ["<stun:one>", "<turn:two>"]
    assert worker_of_id(answer.headers["Location"].removeprefix("/whep/sessions/")) == 1


async def test_a_sessionid_finds_its_worker_whatever_comes_first_in_a_form(rig: Rig) -> None:
    answer = await rig.client.post("/offer", json={"sdp": "v=0", "type": "offer"})
    assert worker_of_number((await answer.json())["sessionid"]) == 1
    number = new_number(2)
    for path in ("/human", "/interrupt_talk", "/is_speaking", "/record", "/set_audiotype"):
        assert await (await rig.client.post(path, json={"sessionid": str(number)})).json() == {"worker": 2}
    form = aiohttp.FormData()
    form.add_field("file", b"sound" * 1000, filename="a.wav")
    form.add_field("sessionid", str(number))
    assert await (await rig.client.post("/humanaudio", data=form)).json() == {"worker": 2}
    assert b"sound" * 1000 in rig.workers[1].seen[-1].body
    assert str(number).encode() in rig.workers[1].seen[-1].body


async def test_only_a_few_sounds_are_received_at_once(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.web.sound_form.MOST_AT_ONCE", 0)
    rig = await make_rig()
    form = aiohttp.FormData({"sessionid": str(new_number(2))})
    form.add_field("file", b"sound", filename="a.wav")
    answer = await (await rig.client.post("/humanaudio", data=form)).json()
    assert (answer["code"], "sounds are being received" in answer["msg"]) == (-1, True)
    assert rig.workers[1].seen == []


async def test_a_sessionid_of_a_worker_that_is_gone_is_told_in_livetalkings_words(rig: Rig) -> None:
    await rig.workers[1].die()
    form = aiohttp.FormData({"sessionid": str(new_number(2))})
    form.add_field("file", b"sound", filename="a.wav")
    for answer in (
        await rig.client.post("/human", json={"sessionid": new_number(2), "text": "a", "type": "echo"}),
        await rig.client.post("/humanaudio", data=form),
        await rig.client.post("/is_speaking", json={"sessionid": new_number(40)}),
    ):
        body = await answer.json()
        assert (answer.status, body["code"]) == (200, -1)
        assert body["msg"].startswith("There is no session with this sessionid.")


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_worker_that_dies_takes_its_own_sessions_only(rig: Rig, noticed: bool) -> None:
    lost, kept = [await rig.create() for _ in range(2)]
    sockets = [await rig.socket(each) for each in (lost, kept)]
    for number, socket in enumerate(sockets, 1):
        await socket.send_str("hello")
        assert await socket.receive_str() == f"{number}: hello"
    await rig.workers[0].die(noticed=noticed)

    event = await sockets[0].receive_json(timeout=10)
    assert event == {"type": "session_lost", "reason": "The media worker of this session has ended. Create a new session."}
    message = await sockets[0].receive(timeout=10)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
    answer = await rig.client.get(f"/v1/sessions/{lost['session_id']}", headers=INTERNAL)
    assert (answer.status, (await answer.json())["type"]) == (404, "urn:gpuserver:problem:session-not-found")
    assert (await rig.client.get(f"/ws/{lost['session_id']}?token={TOKEN}", headers=_UPGRADE)).status == 404

    await sockets[1].send_str("still there?")
    assert await sockets[1].receive_str() == "2: still there?"
    assert worker_of_id((await rig.create())["session_id"]) == 2
    listed = await (await rig.client.get("/v1/sessions", headers=INTERNAL)).json()
    assert listed["total"] == 2


async def test_not_every_new_session_waits_long_for_a_worker_that_is_silent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "COUNT_SECONDS", 0.05)
    rig.workers[0].may_list.clear()
    assert worker_of_id((await rig.create())["session_id"]) == 2
    monkeypatch.setattr(placement, "COUNT_SECONDS", 3600.0)
    assert worker_of_id((await rig.create())["session_id"]) == 2
    rig.workers[0].may_list.set()
    assert worker_of_id((await rig.create())["session_id"]) == 1


_UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}


async def test_without_any_worker_nothing_is_placed_and_clients_are_told_when_to_try_again(rig: Rig) -> None:
    for worker in rig.workers:
        await worker.die()
    for answer in (
        await rig.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2}, headers=INTERNAL),
        await rig.client.get("/v1/voices"),
        await rig.client.post("/v1/avatars/demo/preload"),
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")


@pytest.mark.parametrize(
    "session_id",
    ["nobody", new_session_id(), new_session_id(9), "..%2f..%2fhealth"],
    ids=["no id", "of one process", "of a ninth worker", "a path"],
)
async def test_an_id_that_no_worker_has_is_not_found(rig: Rig, session_id: str) -> None:
    answer = await rig.client.get(f"/v1/sessions/{session_id}", headers=INTERNAL)
    assert answer.status == 404
    assert [worker.seen for worker in rig.workers] == [[], []]


async def test_a_wrong_token_is_refused_by_the_worker(rig: Rig) -> None:
    session = await rig.create()
    assert (await rig.client.get(f"/ws/{session['session_id']}?token=wrong", headers=_UPGRADE)).status == 401


async def test_keys_and_rates_are_checked_here_once(make_rig: MakeRig) -> None:
    rig = await make_rig(api_keys=KEY, rate_limit="2/minute")
    assert (await rig.client.get("/v1/voices")).status == 401
    answers = [await rig.client.get("/v1/voices", headers={"X-API-Key": KEY}) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers.getall("RateLimit") == ['"default";r=1;t=60']
    assert sorted(len(worker.seen) for worker in rig.workers) == [1, 1]
    assert (await rig.client.get("/v1/sessions")).status == 401  # for the management API alone


async def test_speech_streams_and_breaks_off_as_the_worker_does(rig: Rig) -> None:
    answer = await rig.client.post("/v1/audio/speech", json={"input": "Hello."})
    assert (answer.status, answer.headers["X-Voice"], await answer.read()) == (200, "hibari", b"sound")
    with pytest.raises(aiohttp.ClientError):
        await (await rig.client.post("/v1/audio/speech", json={"input": "break"})).read()


async def test_every_worker_preloads(rig: Rig) -> None:
    assert (await rig.client.post("/v1/avatars/demo/preload")).status == 200
    assert [[seen.path for seen in worker.seen] for worker in rig.workers] == [["/v1/avatars/demo/preload"]] * 2


async def test_an_avatar_that_any_worker_shows_is_in_use(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(AvatarManager, "folder", lambda _manager, _avatar_id: tmp_path)
    monkeypatch.setattr(AvatarManager, "delete", lambda _manager, avatar_id: deleted.append(avatar_id))
    sessions = [(await rig.create(avatar_id=name))["session_id"] for name in ("other", "shown")]
    answer = await rig.client.delete("/v1/avatars/shown")
    assert (answer.status, (await answer.json())["sessions"]) == (409, sessions[1:])
    assert (await rig.client.delete("/v1/avatars/shown?force=true")).status == 204
    assert (deleted, list(rig.workers[0].sessions), list(rig.workers[1].sessions)) == (["shown"], sessions[:1], [])


async def test_the_router_serves_what_a_worker_does_and_asks_for_the_same(make_settings: MakeSettings) -> None:
    from gpuserver.media.server import create_app as create_media
    from gpuserver.media_router.fleet import Fleet
    from gpuserver.media_router.renderers import Renderers
    from gpuserver.media_router.server import create_app as create_router

    settings = make_settings()
    ours, theirs = (
        {
            (route.method, route.resource.canonical): (stated_access(route.handler), getattr(route.handler, "__uncounted__", False))
            for route in app.router.routes()
            if route.resource is not None
        }
        for app in (create_router(settings, Fleet([]), Renderers()), create_media(settings))
    )
    assert ours == theirs
