"""The page's own scripts in a browser without a server: the other end, and the clock, are the test's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from gpuserver.web.static_routes import CONTENT_TYPES, FOLDER

SITE = "http://page.test"
SESSION = {"session_id": "s", "engine_url": "ws://page.test/ws/s", "engine_token": "t", "webrtc": {"iceServers": []}}

# Sockets that say nothing of their own, and whose other end never answers a farewell.
SILENT_SOCKETS = """
globalThis.sockets = [];
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 1;
  sent = [];
  constructor() { sockets.push(this); }
  send(text) { this.sent.push(JSON.parse(text).type); }
  close() { this.readyState = 2; }
};
globalThis.peers = [];
globalThis.RTCPeerConnection = class {
  connectionState = "new";
  done = [];
  constructor() { peers.push(this); }
  addTransceiver() {}
  async setLocalDescription() { this.localDescription = { sdp: "offer" }; }
  async setRemoteDescription({ sdp }) { this.done.push(sdp); }
  async addIceCandidate(candidate) {
    if (candidate === "useless") throw new Error("useless");
    this.done.push(candidate);
  }
  become(state) { this.connectionState = state; this.onconnectionstatechange(); }
  close() { this.connectionState = "closed"; }
};
"""

CALL = """async () => {
  const { Call } = await import("/call.js");
  globalThis.told = [];
  globalThis.call = new Call({}, () => []);
  for (const name of ["state", "unreachable", "problem"])
    call.addEventListener(name, ({ detail }) => told.push(detail?.state ?? name));
  globalThis.running = call.run().then(() => told.push("returned"));
}"""


AVATAR = {"avatar_id": "anna", "created_at": "2026-01-01T00:00:00Z", "width": 64, "height": 64, "seconds": 1.0, "mock": False}
MADE = {"state": "done", "stage": "done", "progress": 1, "report": None}


def _answer(route: Route) -> None:
    """The scripts from the package; an API that has one session."""
    name = route.request.url.removeprefix(f"{SITE}/").removeprefix("static/")
    if name.startswith("v1/"):
        route.fulfill(json=SESSION)
    elif name == "page":
        route.fulfill(path=FOLDER / "index.html", content_type="text/html")
    elif (FOLDER / name).is_file():
        route.fulfill(path=FOLDER / name, content_type=CONTENT_TYPES[Path(name).suffix])
    else:
        route.fulfill(body="<!doctype html><button id=key-cancel></button>", content_type="text/html")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    page.add_init_script(SILENT_SOCKETS)
    page.route(f"{SITE}/**", _answer)
    page.goto(f"{SITE}/")
    yield page
    context.close()


def _open(page: Page, number: int = 0) -> None:
    page.wait_for_function(f"sockets.length > {number}")
    page.evaluate(f"sockets[{number}].onopen()")


def test_a_dead_line_is_left_at_once_although_its_farewell_is_not_answered(page: Page) -> None:
    page.evaluate(CALL)
    _open(page)
    page.clock.run_for(15_000)
    assert "ping" in page.evaluate("sockets[0].sent")
    page.clock.run_for(10_000)
    page.clock.run_for(1_000)
    page.wait_for_function("sockets.length === 2")


def test_hanging_up_ends_a_call_whose_line_is_dead(page: Page) -> None:
    page.evaluate(CALL)
    _open(page)
    page.evaluate("call.hangUp()")
    page.wait_for_function("told.at(-1) === 'returned'")


def test_a_candidate_that_cannot_be_used_leaves_the_answer_and_the_others_their_way(page: Page) -> None:
    page.evaluate(CALL)
    _open(page)
    for message in (
        '{"type": "webrtc_ice_candidate", "candidate": "useless"}',
        '{"type": "webrtc_answer", "sdp": "answer"}',
        '{"type": "webrtc_ice_candidate", "candidate": "useful"}',
    ):
        page.evaluate("data => sockets[0].onmessage({ data })", message)
    page.wait_for_function("peers[0].done.length === 2")
    assert page.evaluate("peers[0].done") == ["answer", "useful"]


def test_an_offer_that_nobody_answers_leaves_the_call_in_text_and_is_made_again(page: Page) -> None:
    page.evaluate(CALL)
    _open(page)
    for _ in range(3):
        page.evaluate("sockets[0].onmessage({ data: JSON.stringify({ type: 'pong' }) })")
        page.clock.run_for(11_000)
    page.wait_for_function("peers.length === 2")
    assert page.evaluate("told.slice(-2)") == ["unreachable", "connected"]


def test_that_media_do_not_get_through_is_said_once_until_they_have(page: Page) -> None:
    page.evaluate(CALL)
    _open(page)
    for number, state in enumerate(("failed", "failed", "connected")):
        page.wait_for_function(f"peers.length === {number + 1}")
        page.evaluate(f"peers[{number}].become('{state}')")
    assert page.evaluate("told.filter((name) => name === 'unreachable').length") == 1
    page.evaluate("peers[2].become('failed')")
    assert page.evaluate("told.filter((name) => name === 'unreachable').length") == 2


def test_a_new_face_can_be_called_although_the_gallery_has_not_heard_of_it(page: Page) -> None:
    lists = iter([(200, []), (503, []), (200, [AVATAR])])

    def answer(route: Route) -> None:
        status, avatars = next(lists)
        route.fulfill(status=status, json={"avatars": avatars})

    page.route("**/v1/avatars?detail=true", answer)
    page.route("**/v1/avatars/upload", lambda route: route.fulfill(status=202, json={"job_id": "j"}))
    told = f"event: job\ndata: {json.dumps(MADE)}\n\n"
    page.route("**/v1/jobs/j/events", lambda route: route.fulfill(body=told, content_type="text/event-stream"))
    page.goto(f"{SITE}/page")
    page.click("#add")
    page.set_input_files("#upload-file", {"name": "anna.mp4", "mimeType": "video/mp4", "buffer": b"x"})
    page.click("#upload-send")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/sessions")) as asked:
        page.click("#upload-call")
    assert (asked.value.post_data_json or {})["avatar_id"] == "anna"
