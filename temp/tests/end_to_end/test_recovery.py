"""What the page does when something goes away: a place, the connection, the media server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from face_page import IN_CALL, FacePage
from playwright.sync_api import Browser, Response, expect
from running_server import RunningServer, running_server

RESTART_MS = 30_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("recovery"), MAX_SESSIONS="1") as server:
        yield server


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[FacePage]:
    visit = FacePage(browser, server.url, locale="en-GB")
    yield visit
    if visit.page.is_visible("#hang-up"):
        visit.hang_up()
    visit.close()


def test_a_caller_who_finds_every_place_taken_is_told_and_let_in_when_one_is_free(
    browser: Browser, server: RunningServer, visit: FacePage
) -> None:
    first = FacePage(browser, server.url)
    first.call("demo")
    visit.page.click(".card[data-avatar-id=demo] .card-face")
    visit.wait_until("waiting")
    assert visit.page.locator("#curtain-text").inner_text().startswith("All places are taken. Trying again in ")
    first.hang_up()
    first.close()
    visit.page.wait_for_selector(IN_CALL, timeout=RESTART_MS)


def test_a_lost_connection_comes_back_to_the_same_session(server: RunningServer, visit: FacePage) -> None:
    visit.call("demo")
    session_id = visit.session_id
    os.kill(server.process_id("management"), signal.SIGKILL)  # the WebSocket runs through it, the session does not live in it
    visit.wait_until("reconnecting")
    visit.page.wait_for_selector(IN_CALL, timeout=RESTART_MS)
    assert visit.session_id == session_id
    visit.write("Hello again.")
    visit.wait_until("speaking")  # the picture has stayed connected all the while
    expect(visit.page.locator(".bubble[data-role=assistant]").last).to_contain_text("Hello again.")


def test_a_restarted_media_server_continues_the_conversation_in_a_new_session(server: RunningServer, visit: FacePage) -> None:
    visit.call("demo")
    session_id = visit.session_id
    visit.write("My name is Bob.")
    visit.wait_until("speaking")
    visit.page.keyboard.press("Escape")  # the rest of the answer is of no interest here
    visit.wait_until("listening")
    with visit.page.expect_response(_creates_session, timeout=RESTART_MS) as created:
        os.kill(server.process_id("media"), signal.SIGKILL)
    visit.page.wait_for_selector(IN_CALL, timeout=RESTART_MS)
    history = json.loads(created.value.request.post_data or "{}")["history"]
    assert history[0] == {"role": "user", "content": "My name is Bob."}
    assert visit.session_id != session_id
    expect(visit.page.locator(".note").last).to_have_text("Back again. The conversation goes on.")
    visit.write("Are you there?")
    visit.wait_until("speaking")
    expect(visit.page.locator(".bubble[data-role=assistant]").last).to_contain_text("Are you there?")


def _creates_session(response: Response) -> bool:
    return response.request.method == "POST" and response.url.endswith("/v1/sessions") and response.status == 201
