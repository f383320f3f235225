"""/v1/avatars… against a fake manager: the HTTP side of creating, showing and deleting avatars."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from fake_avatar_manager import FakeAvatarManager
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from gpuserver.config import Settings
from gpuserver.musetalk.avatars.disk_room import MARGIN_BYTES
from gpuserver.web import avatar_routes, interim
from gpuserver.web.avatar_routes import add_avatar_routes
from gpuserver.web.problem import problem_middleware

Client = TestClient[web.Request, web.Application]
BODY = {"avatar_id": "a1", "video_path": "/tmp/test.mp4", "apply_blur": False, "tutor_id": 13}


class FakeUsers:
    """Fake AvatarUsers: these sessions show these avatars."""

    def __init__(self) -> None:
        self.sessions: dict[str, str] = {}

    async def showing(self, avatar_id: str) -> list[str]:
        return [session_id for session_id, shown in self.sessions.items() if shown == avatar_id]

    async def end(self, session_ids: list[str]) -> None:
        for session_id in session_ids:
            del self.sessions[session_id]


@pytest.fixture
def manager(settings: Settings) -> FakeAvatarManager:
    manager = FakeAvatarManager(settings)
    manager.start()
    return manager


@pytest.fixture
def users() -> FakeUsers:
    return FakeUsers()


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, manager: FakeAvatarManager, users: FakeUsers) -> Client:
    app = web.Application(middlewares=[problem_middleware])
    add_avatar_routes(app, manager, users, max_upload_mb=1)
    return await aiohttp_client(app)


def _form(**fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(fields)
    form.add_field("video_file", io.BytesIO(b"video"), filename="a.mp4", content_type="video/mp4")
    return form


async def test_an_avatar_is_created_shown_listed_and_deleted(client: Client) -> None:
    answer = await client.post("/v1/avatars", json=BODY)
    assert (answer.status, answer.headers["Location"]) == (201, "/v1/avatars/a1")
    created = await answer.json()
    assert {"status": "success", "avatar_id": "a1", "message": "Avatar created successfully"}.items() <= created.items()

    shown = await (await client.get("/v1/avatars/a1")).json()
    assert (shown["tutor_id"], shown["frames"], shown["quality"]["used_frames"]) == ("13", 25, 25)
    assert await (await client.get("/v1/avatars")).json() == {"total": 1, "avatars": ["a1"]}
    assert await (await client.get("/v1/avatars?detail=true")).json() == {"total": 1, "avatars": [shown]}

    assert (await client.delete("/v1/avatars/a1")).status == 204
    assert (await client.get("/v1/avatars/a1")).status == 404
    assert (await client.delete("/v1/avatars/a1")).status == 404


async def test_a_duplicate_is_a_409_unless_it_replaces(client: Client) -> None:
    assert (await client.post("/v1/avatars", json=BODY)).status == 201
    duplicate = await client.post("/v1/avatars", json=BODY)
    assert duplicate.status == 409
    assert "?replace=true" in (await duplicate.json())["advice"]
    assert (await client.post("/v1/avatars?replace=true", json=BODY)).status == 201


@pytest.mark.parametrize(("text", "blur"), [("false", False), ("0", False), ("True", True), ("1", True), ("", False)])
async def test_form_fields_are_parsed_from_text(client: Client, manager: FakeAvatarManager, text: str, blur: bool) -> None:
    answer = await client.post("/v1/avatars/upload", data=_form(avatar_id="a1", apply_blur=text, tutor_id="13", colour="blue"))
    assert answer.status == 201, await answer.text()
    assert manager.uploaded == [b"video"]
    assert (manager.info("a1").apply_blur, manager.info("a1").tutor_id) == (blur, "13")
    assert list(manager.uploads_dir.iterdir()) == []


async def test_what_a_form_says_about_an_avatar_is_shown_with_it(client: Client) -> None:
    said = {"description": "讲代数的老师", "timbre": "warm", "tts_model": "edge-tts", "avatar_model": "MuseTalk"}
    assert (await client.post("/v1/avatars/upload", data=_form(avatar_id="a1", **said))).status == 201
    shown = await (await client.get("/v1/avatars/a1")).json()
    assert said.items() <= shown.items()
    long = await client.post("/v1/avatars/upload", data=_form(avatar_id="a2", description="x" * 1001))
    assert (long.status, (await long.json())["detail"]) == (400, "description: String should have at most 1000 characters")


async def test_an_empty_tutor_id_of_a_form_is_none(client: Client, manager: FakeAvatarManager) -> None:
    assert (await client.post("/v1/avatars/upload", data=_form(avatar_id="a1", tutor_id=""))).status == 201
    assert manager.info("a1").tutor_id is None


@pytest.mark.parametrize(
    ("fields", "names"),
    [({}, "avatar_id"), ({"avatar_id": "../a"}, "avatar_id"), ({"avatar_id": "a1", "apply_blur": "perhaps"}, "apply_blur")],
)
async def test_a_wrong_form_field_is_named(client: Client, manager: FakeAvatarManager, fields: dict[str, str], names: str) -> None:
    answer = await client.post("/v1/avatars/upload", data=_form(**fields))
    assert answer.status == 400
    assert names in (await answer.json())["detail"]
    assert list(manager.uploads_dir.iterdir()) == []


async def test_a_form_without_the_file_says_which_field_is_missing(client: Client) -> None:
    with aiohttp.MultipartWriter("form-data") as form:
        form.append("a1").set_content_disposition("form-data", name="avatar_id")
    answer = await client.post("/v1/avatars/upload", data=form)
    assert answer.status == 400
    assert "video_file" in (await answer.json())["advice"]


@pytest.mark.parametrize(("avatar_id", "status"), [("a1", 409), ("../a", 400)])
async def test_an_upload_that_cannot_succeed_is_refused_before_its_file_is_there(
    client: Client, manager: FakeAvatarManager, avatar_id: str, status: int
) -> None:
    manager.add("a1")
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    head = "POST /v1/avatars/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=cut\r\nContent-Length: 1000000"
    parts = f'--cut\r\nContent-Disposition: form-data; name="avatar_id"\r\n\r\n{avatar_id}\r\n--cut\r\n'
    file = 'Content-Disposition: form-data; name="video_file"; filename="a"\r\n\r\n' + "x" * 100_000
    writer.write(f"{head}\r\n\r\n{parts}{file}".encode())
    answer = await reader.readuntil(b"\r\n\r\n")  # most of the file has not been sent
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (manager.uploaded, list(manager.uploads_dir.iterdir())) == ([], [])


async def test_an_upload_that_the_disk_cannot_hold_is_refused_at_once(
    client: Client, manager: FakeAvatarManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuserver.musetalk.avatars.disk_room.shutil.disk_usage", lambda _: SimpleNamespace(free=MARGIN_BYTES))
    answer = await client.post("/v1/avatars/upload", data=_form(avatar_id="a1"))
    assert (answer.status, (await answer.json())["type"]) == (507, "urn:gpuserver:problem:disk-full")
    assert manager.uploaded == []


async def test_uploads_that_do_not_say_how_long_they_are_leave_the_disk_its_room(
    client: Client, manager: FakeAvatarManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([MARGIN_BYTES + 1000, MARGIN_BYTES + 1000])  # at the start; when the file comes, others have filled the disk
    monkeypatch.setattr("gpuserver.musetalk.avatars.disk_room.shutil.disk_usage", lambda _: SimpleNamespace(free=next(free, MARGIN_BYTES)))
    form = _form(avatar_id="a1")()

    async def chunked() -> AsyncIterator[bytes]:
        yield await form.as_bytes()

    answer = await client.post("/v1/avatars/upload", data=chunked(), headers={"Content-Type": form.content_type})
    assert (answer.status, (await answer.json())["type"]) == (507, "urn:gpuserver:problem:disk-full")
    assert (manager.uploaded, list(manager.uploads_dir.iterdir())) == ([], [])


async def test_uploads_beyond_those_that_may_arrive_at_once_are_a_429(
    aiohttp_client: AiohttpClient, manager: FakeAvatarManager, users: FakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avatar_routes, "MOST_UPLOADS", 0)
    app = web.Application(middlewares=[problem_middleware])
    add_avatar_routes(app, manager, users, max_upload_mb=1)
    answer = await (await aiohttp_client(app)).post("/v1/avatars/upload", data=_form(avatar_id="a1"))
    assert (answer.status, (await answer.json())["type"]) == (429, "urn:gpuserver:problem:too-many-jobs")
    assert int(answer.headers["Retry-After"]) > 0


async def test_an_upload_over_the_limit_is_a_413_that_names_it(client: Client) -> None:
    form = aiohttp.FormData({"avatar_id": "a1"})
    form.add_field("video_file", io.BytesIO(b"x" * (1024**2 + 1)), filename="a.mp4")
    answer = await client.post("/v1/avatars/upload", data=form)
    assert answer.status == 413
    assert "MAX_UPLOAD_MB" in (await answer.json())["detail"]


@pytest.mark.parametrize("avatar_id", ["a%2Fb", "a%00", "x" * 65, "a.b", "%2e%2e%2f%2e%2e%2fetc"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/preview"), ("GET", "/idle.mp4"), ("DELETE", "")])
async def test_a_bad_id_in_the_address_is_a_400(client: Client, method: str, path: str, avatar_id: str) -> None:
    answer = await client.request(method, URL(f"/v1/avatars/{avatar_id}{path}", encoded=True))
    assert (answer.status, (await answer.json())["type"]) == (400, "urn:gpuserver:problem:invalid-avatar-id")


async def test_a_slash_in_an_id_is_an_unknown_address(client: Client) -> None:
    assert (await client.get("/v1/avatars/a/b")).status == 404


async def test_the_preview_is_a_jpeg_that_browsers_ask_for_again(client: Client, manager: FakeAvatarManager) -> None:
    manager.add("a1")
    answer = await client.get("/v1/avatars/a1/preview")
    assert (answer.status, answer.content_type, answer.headers["Cache-Control"]) == (200, "image/jpeg", "no-cache")
    assert (await client.get("/v1/avatars/nobody/preview")).status == 404


async def test_the_idle_film_is_made_once_and_served_in_ranges(client: Client, manager: FakeAvatarManager) -> None:
    manager.add("a1")
    answer = await client.get("/v1/avatars/a1/idle.mp4")
    assert (answer.status, answer.content_type, await answer.read()) == (200, "video/mp4", b"a fake film")
    part = await client.get("/v1/avatars/a1/idle.mp4", headers={"Range": "bytes=2-5"})
    assert (part.status, part.headers["Content-Range"], await part.read()) == (206, "bytes 2-5/11", b"fake")
    assert manager.films_made == 1
    assert (await client.get("/v1/avatars/nobody/idle.mp4")).status == 404


async def test_films_beyond_the_queue_are_a_429_and_who_goes_away_cancels_the_one_in_the_making(
    aiohttp_client: AiohttpClient, manager: FakeAvatarManager, users: FakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(avatar_routes, "MOST_FILMS_QUEUED", 0)
    app = web.Application(middlewares=[problem_middleware])
    add_avatar_routes(app, manager, users, max_upload_mb=1)
    client = await aiohttp_client(app)
    for avatar_id in ("a1", "a2"):
        manager.add(avatar_id)
    manager.seconds = 60.0
    waiting = asyncio.ensure_future(client.get("/v1/avatars/a1/idle.mp4"))
    assert await asyncio.to_thread(manager.started.wait, 10)
    refused = await client.get("/v1/avatars/a2/idle.mp4")
    assert (refused.status, "films are being made" in (await refused.json())["detail"]) == (429, True)
    assert int(refused.headers["Retry-After"]) > 0
    waiting.cancel()
    assert await asyncio.to_thread(manager.cancelled.wait, 10)
    assert manager.films_made == 0


async def test_an_avatar_in_use_is_kept_unless_forced(client: Client, manager: FakeAvatarManager, users: FakeUsers) -> None:
    manager.add("a1")
    users.sessions = {"s1": "a1", "s2": "other"}
    answer = await client.delete("/v1/avatars/a1")
    assert answer.status == 409
    assert (await answer.json())["sessions"] == ["s1"]
    assert (await client.delete("/v1/avatars/a1?force=true")).status == 204
    assert users.sessions == {"s2": "other"}


@pytest.mark.parametrize("address", ["/v1/avatars?detail=maybe", "/v1/avatars?detail=2"])
async def test_a_flag_that_is_no_flag_is_a_400(client: Client, address: str) -> None:
    assert (await client.get(address)).status == 400


async def _post_json(client: Client) -> asyncio.StreamWriter:
    body = b'{"avatar_id": "a1", "video_path": "/tmp/a.mp4"}'
    _, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    head = f"POST /v1/avatars HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return writer


async def _post_form(client: Client) -> asyncio.StreamWriter:
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="avatar_id"\r\n\r\na1\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="video_file"; filename="a"\r\n\r\nvideo\r\n--cut--\r\n'
    )
    _, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    head = "POST /v1/avatars/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return writer


@pytest.mark.parametrize("post", [_post_json, _post_form])
async def test_a_client_that_goes_away_cancels_the_preparation(
    client: Client, manager: FakeAvatarManager, monkeypatch: pytest.MonkeyPatch, post: Callable[[Client], Awaitable[asyncio.StreamWriter]]
) -> None:
    monkeypatch.setattr(interim, "INTERVAL_SECONDS", 0.05)
    manager.seconds = 60.0
    writer = await post(client)
    await writer.drain()
    assert await asyncio.to_thread(manager.started.wait, 10)
    writer.close()
    await writer.wait_closed()
    assert await asyncio.to_thread(manager.cancelled.wait, 10)
    assert manager.avatars == {}
