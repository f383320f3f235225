"""Whatever is written into the page: it is shown as it stands, nothing of its markup is spoken, and the next text is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from face_page import FacePage
from playwright.sync_api import Browser, WebSocket, expect
from running_server import RunningServer

MARKDOWN = "# Title\n\n**Bold** and `code`, [a link](http://x.example) and\n\n- one\n- two"
SSML = "<speak><prosody rate='fast'>Hello</prosody> <break time='5s'/>world</speak>"
HUNDRED_KB = "All work and no play. " * 4545


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    """What the server has told the page."""
    return []


@pytest.fixture(scope="module")
def visit(browser: Browser, shared_server: RunningServer, events: list[dict[str, Any]]) -> Iterator[FacePage]:
    visit = FacePage(browser, shared_server.url, locale="en-GB", viewport={"width": 1280, "height": 800})

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: events.append(json.loads(frame)))

    visit.page.on("websocket", listen)
    visit.call("demo")
    yield visit
    assert visit.complaints == []
    visit.hang_up()
    visit.close()


def spoken(events: list[dict[str, Any]]) -> str:
    """What was said last, as the server reports it."""
    return str(next(event["text"] for event in reversed(events) if event["type"] == "speech_ended"))


def last_bubble(visit: FacePage) -> str:
    return visit.page.locator(".bubble").last.evaluate("bubble => bubble.firstChild.textContent")  # type: ignore[no-any-return]


@pytest.mark.parametrize(("text", "said"), [(MARKDOWN, "Title Bold and code, a link and one two"), (SSML, "Hello world")])
def test_markup_is_shown_as_written_and_not_spoken(visit: FacePage, events: list[dict[str, Any]], text: str, said: str) -> None:
    visit.write(text, "say")
    visit.hear_out()
    assert last_bubble(visit) == text
    assert " ".join(spoken(events).replace(".", "").split()) == said


def test_a_text_of_emoji_alone_is_shown_and_passed_over_in_silence(visit: FacePage) -> None:
    visit.write("😀🎉👩‍🚀", "say")
    expect(visit.page.locator(".bubble").last).to_have_text("😀🎉👩‍🚀")
    visit.wait_until("listening")


@pytest.mark.parametrize("text", ["مرحبا بالعالم، كيف حالك؟", "שלום, מה שלומך?"])
def test_writing_from_right_to_left_stands_on_the_right_and_says_that_no_voice_speaks_it(visit: FacePage, text: str) -> None:
    visit.page.fill("#text", text)
    direction = "element => getComputedStyle(element).direction"
    assert visit.page.locator("#text").evaluate(direction) == "rtl"
    visit.write(text, "say")
    expect(visit.page.locator(".bubble").last).to_have_text(text)
    assert visit.page.locator(".bubble").last.evaluate(direction) == "rtl"
    expect(visit.page.locator(".note").last).to_have_text("The voices here cannot speak all of this answer; what is missing can be read.")
    visit.wait_until("listening")


def test_what_was_not_heard_of_a_text_with_markup_is_greyed_out(visit: FacePage) -> None:
    text = "**One** word and `another` one. " + "This is never heard, because it is stopped. " * 3
    visit.write(text, "say")
    visit.wait_until("speaking")
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    bubble = visit.page.locator(".bubble").last
    expect(bubble.locator("em")).to_have_text("stopped here")
    shown = "bubble => [...bubble.childNodes].filter(node => node.nodeName !== 'EM').map(node => node.textContent).join('')"
    assert bubble.evaluate(shown) == text.strip()
    assert "it is stopped." in bubble.locator("s").inner_text()


def test_a_text_of_100_kb_is_spoken_from_its_start_and_can_be_stopped(visit: FacePage) -> None:
    visit.write(HUNDRED_KB, "say")
    visit.wait_until("speaking")
    bubble = visit.page.locator(".bubble").last
    box = bubble.bounding_box()
    assert box is not None
    assert box["height"] < 800  # it scrolls in itself
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    visit.write("Short again.", "say")
    visit.hear_out()
    assert last_bubble(visit) == "Short again."


def test_a_text_that_is_too_long_to_be_sent_stays_in_the_field_and_the_page_says_so(visit: FacePage) -> None:
    text = "长" * 90_000  # 270 kB
    visit.page.fill("#text", text)
    visit.page.press("#text", "Enter")
    expect(visit.page.locator(".note").last).to_have_text("This text is too long to be sent at once.")
    assert len(visit.page.input_value("#text")) == len(text)
    visit.page.fill("#text", "")
