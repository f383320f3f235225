"""/api/avatar: as default httpx clients call it, in front of a fake lip-sync service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from conftest import MakeSettings
from gateway_rig import NOWHERE, Rig, gateway_rig

from gpuserver.web.auth import INTERNAL_HEADER

FACE = {"prompt_face": ("face.mp4", b"a video", "video/mp4")}
PATIENCE = 30.0
FIELDS = {
    "name": "anna",
    "avatar_model": "MuseTalk",
    "tts_model": "edge-tts",
    "avatar_blur": True,  # httpx sends "true"
    "support_clone": False,
    "timbre": "warm",
    "description": "讲代数的老师",
}


@pytest.fixture
async def rig(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway_rig(make_settings, tmp_path, max_upload_mb=1) as rig:
        yield rig


async def test_an_avatar_is_created_listed_started_previewed_and_deleted(rig: Rig) -> None:
    created = await rig.client.post("/api/avatar/create", data=FIELDS, files=FACE)
    assert created.status_code == 200, created.text
    message = "Avatar created successfully. Its lips are drawn by the engine warp, not by MuseTalk."
    assert created.json() == {
        "status": "success", "message": message, "avatar_id": "anna", "image_path": "/api/avatar/preview/anna",
        "avatar_model": "MuseTalk", "engine": "warp", "support_clone": False,
    }  # fmt: skip
    assert rig.service.manager.uploaded == [b"a video"]
    assert rig.service.manager.info("anna").apply_blur is True

    listed = (await rig.client.get("/api/avatar/list")).json()
    assert listed == {
        "anna": {
            "clone": False, "description": "讲代数的老师", "status": "ready", "timbre": "warm", "tts_model": "edge-tts",
            "avatar_model": "MuseTalk", "engine": "warp", "image_path": "/api/avatar/preview/anna",
        }
    }  # fmt: skip

    started = await rig.client.post("/api/avatar/start", data={"avatar_name": "anna"})
    assert (started.status_code, started.json()) == (200, {"status": "success", "message": "Avatar anna is loaded"})
    assert rig.service.preloaded == ["anna"]

    preview = await rig.client.get("/api/avatar/preview/anna")
    assert (preview.headers["Content-Type"], preview.content[:2]) == ("image/jpeg", b"\xff\xd8")
    again = await rig.client.get("/api/avatar/preview/anna", headers={"If-None-Match": "*"})
    assert (again.status_code, again.content) == (304, b"")

    deleted = await rig.client.request("DELETE", "/api/avatar/delete", data={"name": "anna"})
    assert (deleted.status_code, deleted.json()) == (200, {"status": "success", "message": "Avatar anna is deleted"})
    assert (await rig.client.get("/api/avatar/list")).json() == {}


async def test_only_a_name_and_a_face_are_needed(rig: Rig) -> None:
    created = await rig.client.post("/api/avatar/create", data={"name": "ben"}, files=FACE)
    assert (created.json()["message"], created.json()["avatar_model"]) == ("Avatar created successfully.", "warp")


async def test_a_voice_sample_is_taken_not_kept_and_said_to_be_unused(rig: Rig) -> None:
    sample = {"prompt_voice": ("voice.wav", b"RIFF" * 1000, "audio/wav")}
    created = await rig.client.post("/api/avatar/create", data={"name": "ben", "support_clone": "true"}, files=sample | FACE)
    assert created.status_code == 200
    assert "No voice is cloned here" in created.json()["message"]
    assert created.json()["support_clone"] is False
    assert rig.service.manager.uploaded == [b"a video"]


def _multipart(*parts: tuple[str, str]) -> tuple[bytes, dict[str, str]]:
    """A form in this order; a field that begins with prompt_ is a file."""
    lines = []
    for name, content in parts:
        kind = '; filename="f"\r\nContent-Type: application/octet-stream' if name.startswith("prompt_") else ""
        lines.append(f'--cut\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n{content}\r\n')
    return ("".join(lines) + "--cut--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=cut"}


@pytest.mark.parametrize(
    "parts",
    [
        [("prompt_face", "a video"), ("avatar_blur", "0"), ("name", "anna")],
        [("prompt_voice", "a voice"), ("name", "anna"), ("prompt_face", "a video"), ("timbre", "")],
        [("unknown", "x"), ("name", "anna"), ("prompt_face", "a video")],
    ],
)
async def test_fields_come_in_any_order(rig: Rig, parts: list[tuple[str, str]]) -> None:
    content, headers = _multipart(*parts)
    created = await rig.client.post("/api/avatar/create", content=content, headers=headers)
    assert created.status_code == 200, created.text
    assert rig.service.manager.uploaded == [b"a video"]


@pytest.mark.parametrize(
    ("parts", "status", "named"),
    [
        ([("prompt_face", "v")], 400, "name: is missing"),
        ([("name", "anna")], 400, "prompt_face: the form has no such file"),
        ([("name", "an/na"), ("prompt_face", "v")], 400, "name: must be 1 to 64 characters"),
        ([("name", "anna"), ("avatar_blur", "perhaps"), ("prompt_face", "v")], 400, "avatar_blur: must be true or false"),
        ([("name", "anna"), ("name", "ben"), ("prompt_face", "v")], 400, "name: is there twice"),
        ([("name", "anna"), ("description", "x" * 5000), ("prompt_face", "v")], 400, "description: has more than 4096 bytes"),
        ([("name", "anna"), ("description", "x" * 1001), ("prompt_face", "v")], 400, "description: String should have at most 1000"),
        ([("name", "anna"), ("prompt_face", "v" * (1024**2 + 1))], 413, "prompt_face: the file exceeds MAX_UPLOAD_MB"),
    ],
)
async def test_a_wrong_form_is_named_and_leaves_nothing(rig: Rig, parts: list[tuple[str, str]], status: int, named: str) -> None:
    content, headers = _multipart(*parts)
    answer = await rig.client.post("/api/avatar/create", content=content, headers=headers)
    assert (answer.status_code, named in answer.json()["detail"]) == (status, True), answer.text
    assert rig.service.manager.ids() == []
    async with asyncio.timeout(PATIENCE):  # the service notices the end of the broken upload by itself
        while list(rig.service.manager.uploads_dir.iterdir()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("cut", [b'--cut\r\nContent-Disposition: form-data; name="name"\r\n\r\nanna', b"no form at all"])
async def test_a_malformed_form_is_a_400(rig: Rig, cut: bytes) -> None:
    answer = await rig.client.post("/api/avatar/create", content=cut, headers={"Content-Type": "multipart/form-data; boundary=cut"})
    assert answer.status_code == 400, answer.text


async def test_an_avatar_that_exists_is_a_409_unless_it_is_replaced(rig: Rig) -> None:
    rig.service.manager.add("anna")
    answer = await rig.client.post("/api/avatar/create", data={"name": "anna"}, files=FACE)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:gpuserver:problem:avatar-exists")
    assert (await rig.client.post("/api/avatar/create?replace=true", data={"name": "anna"}, files=FACE)).status_code == 200


async def test_an_upload_is_passed_on_while_it_arrives(rig: Rig) -> None:
    """The service has the beginning of the file before the client has sent its end."""
    pieces = 0

    def service_has_it() -> bool:
        return any(file.stat().st_size for file in rig.service.manager.uploads_dir.iterdir())

    async def body() -> AsyncIterator[bytes]:
        nonlocal pieces
        form, _ = _multipart(("name", "anna"), ("prompt_face", "x"))
        beginning, end = form.split(b"x\r\n--cut--")
        yield beginning
        async with asyncio.timeout(PATIENCE):
            while not service_has_it():
                yield b"x" * 1000
                pieces += 1
                await asyncio.sleep(0.01)
        yield b"\r\n--cut--" + end

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    assert (await rig.client.post("/api/avatar/create", content=body(), headers=headers)).status_code == 200
    assert rig.service.manager.uploaded == [b"x" * 1000 * pieces]


async def test_a_default_client_outlasts_a_creation_longer_than_its_read_timeout(rig: Rig) -> None:
    rig.service.manager.seconds = 6.0
    assert rig.client.timeout.read == 5.0
    assert (await rig.client.post("/api/avatar/create", data={"name": "anna"}, files=FACE)).status_code == 200


async def test_a_client_that_goes_away_cancels_the_creation(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.web.interim.INTERVAL_SECONDS", 0.02)
    rig.service.manager.seconds = 60.0
    async with httpx.AsyncClient(base_url=rig.client.base_url, trust_env=False) as client:
        call = asyncio.create_task(client.post("/api/avatar/create", data={"name": "anna"}, files=FACE))
        assert await asyncio.to_thread(rig.service.manager.started.wait, 30)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert await asyncio.to_thread(rig.service.manager.cancelled.wait, 30)


@pytest.mark.parametrize(
    "call",
    [
        {"data": {"avatar_name": "anna"}},
        {"data": {"name": "anna"}},
        {"files": {"avatar_name": (None, "anna")}},
        {"params": {"avatar_name": "anna"}},
    ],
)
async def test_a_name_comes_in_every_usual_form(rig: Rig, call: dict[str, dict[str, str]]) -> None:
    rig.service.manager.add("anna")
    assert (await rig.client.request("POST", "/api/avatar/start", **call)).status_code == 200  # type: ignore[arg-type]
    assert (await rig.client.request("DELETE", "/api/avatar/delete", **call)).status_code == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "status", "named"),
    [
        ({}, 400, "avatar_name: is missing"),
        ({"data": {"avatar_name": "../x"}}, 400, "avatar_name: must be"),
        ({"data": {"avatar_name": "nobody"}}, 404, "no avatar nobody"),
        ({"json": {"avatar_name": "anna"}}, 415, "not a form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=cut"}}, 400, "malformed"),
        ({"data": {str(number): "x" for number in range(9)}}, 400, "malformed"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/avatar/start"), ("DELETE", "/api/avatar/delete")])
async def test_a_form_without_a_usable_name_is_refused(
    rig: Rig, method: str, path: str, call: dict[str, object], status: int, named: str
) -> None:
    answer = await rig.client.request(method, path, **call)  # type: ignore[arg-type]
    assert (answer.status_code, named in answer.json()["detail"]) == (status, True), answer.text


async def test_an_avatar_in_use_is_deleted_only_by_force(rig: Rig) -> None:
    rig.service.manager.add("anna")
    rig.service.sessions["s1"] = "anna"
    refused = await rig.client.request("DELETE", "/api/avatar/delete", data={"name": "anna"})
    assert (refused.status_code, refused.json()["sessions"]) == (409, ["s1"])
    assert (await rig.client.request("DELETE", "/api/avatar/delete?force=true", data={"name": "anna"})).status_code == 200
    assert rig.service.sessions == {}


async def test_health_is_503_while_the_lip_sync_service_does_not_answer(rig: Rig, make_settings: MakeSettings, tmp_path: Path) -> None:
    for path in ("/api/avatar/health", "/health"):
        answer = await rig.client.get(path)
        assert (answer.status_code, answer.json()["status"], answer.json()["tts"]["status"]) == (200, "healthy", "connected")
    async with gateway_rig(make_settings, tmp_path / "down", lipsync_service_url=NOWHERE, tts_service_url=NOWHERE) as down:
        answer = await down.client.get("/api/avatar/health")
        assert (answer.status_code, answer.json()["lipsync"]["status"]) == (503, "disconnected")


async def test_a_speech_service_that_asks_for_a_key_is_there(rig: Rig) -> None:
    rig.service.required = {"X-API-Key": "k" * 32}
    tts = (await rig.client.get("/api/avatar/health")).json()["tts"]
    assert (tts["status"], tts["message"]) == ("connected", "It answers, and asks for a key.")


async def test_a_service_that_is_stopped_makes_health_503_by_itself(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process: its connections are taken by the kernel, and nothing comes back."""
    monkeypatch.setattr("gpuserver.gateway.service_states.ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        url = f"http://127.0.0.1:{stopped.getsockname()[1]}"
        async with gateway_rig(make_settings, tmp_path, lipsync_service_url=url) as rig:
            assert (await rig.client.get("/health")).status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", "list", {}),
        ("POST", "create", {"data": {"name": "anna"}, "files": FACE}),
        ("POST", "start", {"data": {"avatar_name": "anna"}}),
        ("GET", "preview/anna", {}),
        ("DELETE", "delete", {"data": {"name": "anna"}}),
        ("POST", "webrtc/offer", {"json": {}}),
    ],
)
async def test_without_the_lip_sync_service_every_call_is_a_502(
    make_settings: MakeSettings, tmp_path: Path, method: str, path: str, call: dict[str, object]
) -> None:
    async with gateway_rig(make_settings, tmp_path, lipsync_service_url=NOWHERE) as rig:
        answer = await rig.client.request(method, f"/api/avatar/{path}", **call)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:gpuserver:problem:lip-sync-service-failed")


async def test_the_gateway_shows_its_own_credentials_and_checks_the_callers(make_settings: MakeSettings, tmp_path: Path) -> None:
    key, second = "k" * 32, "l" * 32
    async with gateway_rig(make_settings, tmp_path, api_keys=f"{key},{second}", internal_secret="inner") as rig:
        rig.service.required = {"X-API-Key": key, INTERNAL_HEADER: "inner"}
        assert (await rig.client.get("/api/avatar/list")).status_code == 401
        assert (await rig.client.get("/api/avatar/health")).status_code == 200
        assert (await rig.client.get("/api/avatar/list", headers={"Authorization": f"Bearer {second}"})).status_code == 200
        assert "Authorization" not in rig.service.requests[-1].headers


async def test_a_service_that_refuses_the_gateway_is_a_502_not_the_callers_401(rig: Rig) -> None:
    rig.service.required = {"X-API-Key": "another"}
    answer = await rig.client.get("/api/avatar/list")
    assert (answer.status_code, "refuses this gateway" in answer.json()["detail"]) == (502, True)


async def test_nothing_is_written_where_the_gateway_runs(rig: Rig, tmp_path: Path) -> None:
    await rig.client.post("/api/avatar/create", data=FIELDS, files=FACE)
    assert [path.name for path in tmp_path.iterdir()] == ["service"]
