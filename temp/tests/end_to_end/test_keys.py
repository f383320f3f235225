"""A server with API keys, as operators run it: the page asks for the key, students need none, and poisoned input hurts neither process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from clips import Clip, write_clip
from face_page import FacePage
from playwright.sync_api import Browser, expect
from running_server import RunningServer, running_server

KEYS = [letter * 32 for letter in "abcd"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With four keys, and the rate limit that is the default."""
    with running_server(tmp_path_factory.mktemp("keys"), API_KEYS=",".join(KEYS), RATE_LIMIT="120/minute", MAX_UPLOAD_MB="1") as server:
        yield server
        log = server.log.read_text()
        assert not [key for key in KEYS if key in log]
        assert "Traceback" not in log


def test_the_page_asks_for_the_key_and_then_works_within_the_limits(browser: Browser, server: RunningServer, tmp_path: Path) -> None:
    visit = FacePage(browser, server.url, key=KEYS[0], viewport={"width": 1280, "height": 800}, locale="en-GB")
    assert visit.page.locator(".card[data-avatar-id=demo] img").evaluate("image => image.complete && image.naturalWidth") > 100
    added = visit.add(write_clip(tmp_path / "teacher.mp4", Clip(seconds=3)))
    visit.page.hover(f".card[data-avatar-id={added}] .card-face")
    visit.page.wait_for_selector(".card video[data-playing=true]")
    visit.call("demo")
    visit.write("Hello")
    visit.hear_out()
    visit.hang_up()
    visit.page.reload()  # the tab remembers the key
    visit.page.wait_for_selector(".card[data-avatar-id=demo]")
    expect(visit.page.locator("#key")).not_to_be_visible()
    assert [complaint for complaint in visit.complaints if "401" not in complaint] == []
    assert [url for url in visit.requested if KEYS[0] in url and "/v1/sessions" in url] == []
    visit.close()


def test_a_wrong_key_is_said_to_be_wrong_and_can_be_typed_again(browser: Browser, server: RunningServer) -> None:
    page = browser.new_context(locale="zh-CN").new_page()
    page.goto(server.url)
    expect(page.locator("#key-wrong")).to_be_hidden()
    page.fill("#key-input", "x" * 32)
    page.press("#key-input", "Enter")
    expect(page.locator("#key-wrong")).to_have_text("密钥不正确。")
    page.click("#key-cancel")
    expect(page.locator("#lobby-message")).to_contain_text("缺少密钥")
    page.click("#lobby-message button")
    page.fill("#key-input", KEYS[1])
    page.press("#key-input", "Enter")
    page.wait_for_selector(".card[data-avatar-id=demo]")
    page.context.close()


JSON = {"Content-Type": "application/json"}
SESSION = b'{"tutor_id": 1, "student_id": 2, "voice": %s}'
POISON = {
    "deep": (400, b"[" * 100_000, JSON),
    "deep objects": (400, b'{"a":' * 100_000, JSON),
    "huge number": (400, SESSION % (b"9" * 100_000), JSON),
    "infinity": (400, SESSION % b"1e999", JSON),
    "NaN": (400, SESSION % b"NaN", JSON),
    "a name twice": (400, b'{"tutor_id": 1, "tutor_id": 2, "student_id": 3}', JSON),
    "wrong UTF-8": (400, SESSION % b'"\xff"', JSON),
    "lone surrogate": (400, SESSION % b'"\\ud800"', JSON),
    "NUL": (400, SESSION % b'"a\\u0000b"', JSON),
    "nothing": (400, b"", JSON),
    "too large": (413, SESSION % (b'"' + b"a" * 1024 * 1024 + b'"'), JSON),
    "compressed": (415, b"\x1f\x8b\x08", {**JSON, "Content-Encoding": "gzip"}),
    "a form": (415, b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}),
}


PROCESSES = pytest.mark.parametrize("process", ["management", "media"])


def _base(server: RunningServer, process: str) -> str:
    return server.url if process == "management" else server.media_url


def _refused(server: RunningServer, answer: httpx.Response) -> int:
    """The status of a problem; the server lives on."""
    assert answer.headers["content-type"].split(";")[0] == "application/problem+json", answer.text
    assert (answer.json()["status"], len(answer.content) < 2000) == (answer.status_code, True)
    assert httpx.get(f"{server.url}/health").status_code == 200
    return answer.status_code


@PROCESSES
@pytest.mark.parametrize("name", POISON)
def test_poisoned_json_is_a_problem_and_the_server_lives(server: RunningServer, process: str, name: str) -> None:
    status, body, headers = POISON[name]
    path = "/v1/sessions" if process == "management" else "/v1/avatars"
    answer = httpx.post(_base(server, process) + path, content=body, headers={**headers, "X-API-Key": KEYS[1]})
    assert _refused(server, answer) == status


@PROCESSES
def test_uploads_too_large_or_compressed_are_refused(server: RunningServer, process: str) -> None:
    address, key = _base(server, process) + "/v1/avatars/upload", {"X-API-Key": KEYS[1]}
    large = httpx.post(address, data={"avatar_id": "a"}, files={"video_file": b"a" * (1024**2 + 1)}, headers=key)
    assert _refused(server, large) == 413
    assert "MAX_UPLOAD_MB" in large.json()["detail"]
    packed = httpx.post(address, content=b"\x1f\x8b", headers={**key, "Content-Type": "multipart/form-data", "Content-Encoding": "gzip"})
    assert _refused(server, packed) == 415


@PROCESSES
def test_an_offer_too_large_is_refused(server: RunningServer, process: str) -> None:
    body = {"tutor_id": 1, "student_id": 2, "avatar_id": "demo"}
    session = httpx.post(f"{server.url}/v1/sessions", json=body, headers={"X-API-Key": KEYS[1]}).json()
    offer = f"{_base(server, process)}/v1/sessions/{session['session_id']}/offer"
    answer = httpx.post(offer, json={"sdp": "a" * 64_000, "type": "offer"}, params={"token": session["engine_token"]})
    assert _refused(server, answer) == 413
    httpx.delete(f"{server.url}/v1/sessions/{session['session_id']}", headers={"X-API-Key": KEYS[1]}).raise_for_status()


@PROCESSES
def test_a_key_that_calls_too_often_is_refused_and_the_others_are_not(server: RunningServer, process: str) -> None:
    with httpx.Client(base_url=_base(server, process), headers={"X-API-Key": KEYS[3]}) as client:
        answers = [client.get("/v1/webrtc/config") for _ in range(121)]
    assert [answer.status_code for answer in answers] == [200] * 120 + [429]
    assert _refused(server, answers[-1]) == 429
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert httpx.get(f"{_base(server, process)}/v1/webrtc/config", headers={"X-API-Key": KEYS[2]}).status_code == 200


@PROCESSES
def test_what_is_no_http_is_a_problem_and_the_server_lives(server: RunningServer, process: str) -> None:
    address = httpx.URL(_base(server, process))
    with socket.create_connection((address.host, address.port or 80), timeout=30) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
        assert b"application/problem+json" in raw.recv(4096)
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_keys_open_and_tokens_suffice(server: RunningServer) -> None:
    assert httpx.get(f"{server.url}/v1/avatars").status_code == 401
    assert httpx.get(f"{server.media_url}/v1/avatars").status_code == 401
    assert httpx.get(f"{server.media_url}/v1/avatars", headers={"X-API-Key": KEYS[2]}).status_code == 200
    bearer = {"Authorization": f"Bearer {KEYS[2]}"}
    session = httpx.post(f"{server.url}/v1/sessions", json={"tutor_id": 1, "student_id": 2, "avatar_id": "demo"}, headers=bearer).json()
    offer = f"{server.url}/v1/sessions/{session['session_id']}/offer"
    wrong = httpx.post(offer, json={"sdp": "v=0", "type": "offer"}, headers=bearer)
    right = httpx.post(offer, json={"sdp": "v=0", "type": "offer"}, headers={"Authorization": f"Bearer {session['engine_token']}"})
    assert (wrong.status_code, right.status_code) == (401, 400)
    assert httpx.delete(f"{server.url}/v1/sessions/{session['session_id']}", headers=bearer).status_code == 204
