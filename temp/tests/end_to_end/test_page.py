"""The page at /, against the running product: what a visitor sees before and around a call."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, write_clip
from face_page import PREPARE_MS, FacePage
from playwright.sync_api import Browser, expect
from running_server import RunningServer

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.fixture
def server(shared_server: RunningServer) -> RunningServer:
    return shared_server


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[FacePage]:
    visit = FacePage(browser, server.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    yield visit
    visit.close()


def test_the_upload_comes_first_then_the_sample_face_with_its_label(visit: FacePage) -> None:
    expect(visit.page.locator("#gallery li").first.locator("#add")).to_be_visible()
    card = visit.page.locator(".card[data-avatar-id=demo]")
    expect(card.locator(".badge")).to_have_text("Sample face")
    assert card.locator("img").evaluate("image => image.complete && image.naturalWidth") > 100


def test_the_page_takes_everything_from_this_server_and_the_console_stays_clean(visit: FacePage, server: RunningServer) -> None:
    visit.call("demo")
    visit.hang_up()
    here = server.url.removeprefix("http://")
    assert [url for url in visit.requested if here not in url.split("/")[2]] == []
    assert len([url for url in visit.requested if url.startswith("ws://")]) == 1
    assert visit.complaints == []


def test_scripts_from_elsewhere_and_inline_scripts_are_refused(visit: FacePage) -> None:
    visit.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))")
    assert visit.page.title() == "Talk face to face"
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)


def test_a_text_file_named_mp4_is_refused_in_plain_words(visit: FacePage, tmp_path: Path) -> None:
    fake = tmp_path / "holiday notes (final).mp4"
    fake.write_text("These are notes, not a film.\n" * 100)
    visit.choose_file(fake)
    assert visit.page.input_value("#upload-id") == "holiday_notes_final"
    visit.page.click("#upload-send")
    error = visit.page.locator("#upload-error")
    expect(error).to_be_visible(timeout=PREPARE_MS)
    assert "not a video" in error.inner_text()
    assert "MP4" in error.inner_text()
    assert not re.search(r"[{}]|urn:|Traceback|415", error.inner_text())
    expect(visit.page.locator("#upload-send")).to_be_enabled()  # another file may be chosen at once
    visit.page.click("#upload-cancel")
    assert visit.avatar_ids == ["demo"]


def test_a_dropped_clip_becomes_a_face_and_can_be_deleted_again(visit: FacePage, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "demo.mp4", Clip(seconds=1))
    drop = """([data, name]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type: "video/mp4" }));
        for (const type of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    visit.page.evaluate(drop, [base64.b64encode(clip.read_bytes()).decode(), clip.name])
    assert visit.page.input_value("#upload-id") == "demo_2"  # "demo" is taken
    visit.page.click("#upload-send")
    expect(visit.page.locator("#upload-result")).to_be_visible(timeout=PREPARE_MS)
    visit.page.click("#upload-cancel")
    card = visit.page.locator(".card[data-avatar-id=demo_2]")
    expect(card).to_be_visible()
    expect(card.locator(".badge")).to_have_count(0)
    expect(visit.page.locator("#lobby-message")).to_have_text("demo_2 is ready.")
    card.hover()
    card.locator(".remove").click()
    visit.page.click("#confirm button[value=yes]")
    expect(card).to_have_count(0)
    assert visit.avatar_ids == ["demo"]


def test_a_call_needs_no_mouse(visit: FacePage) -> None:
    visit.page.keyboard.press("Tab")  # voice and model
    visit.page.keyboard.press("Tab")  # the language
    visit.page.keyboard.press("Tab")  # add a face
    visit.page.keyboard.press("Tab")  # the sample face
    visit.page.keyboard.press("Enter")
    visit.wait_until("listening")
    visit.page.keyboard.type("Good morning.")  # the cursor is in the field already
    visit.page.keyboard.press("Enter")
    visit.wait_until("speaking")
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    expect(visit.page.locator(".bubble[data-interrupted]")).to_be_visible()
    visit.page.focus("#hang-up")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".card[data-avatar-id=demo] .card-face")).to_be_focused()


def test_a_chinese_browser_gets_a_chinese_page_and_the_switch_is_remembered(browser: Browser, server: RunningServer) -> None:
    visit = FacePage(browser, server.url, locale="zh-CN")
    expect(visit.page.locator("h1")).to_have_text("想和谁聊一聊？")
    assert visit.page.get_attribute("html", "lang") == "zh-CN"
    assert not [text for text in visit.page.locator("[data-i18n]").all_text_contents() if re.search(r"^[a-z_]+\.[a-z_]+$", text)]
    visit.page.click("[data-action=switch-language]")
    visit.page.reload()
    expect(visit.page.locator("h1")).to_have_text("Who would you like to talk with?")
    visit.close()


def test_both_languages_have_the_same_texts(visit: FacePage) -> None:
    missing = visit.page.evaluate(
        """async () => {
            const { STRINGS: { en, zh } } = await import("/static/strings.js");
            const ofTheServer = /^(problem|advice)\\./; // it says these in English itself
            return [...Object.keys(en).filter((key) => !(key in zh)),
                    ...Object.keys(zh).filter((key) => !(key in en) && !ofTheServer.test(key))];
        }"""
    )
    assert missing == []


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_field_is_in_view(browser: Browser, server: RunningServer) -> None:
    visit = FacePage(browser, server.url, **PHONE)
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert visit.page.evaluate(overflow) <= 0
    visit.page.tap(".card[data-avatar-id=demo] .card-face")
    visit.wait_until("listening")
    assert visit.page.evaluate(overflow) <= 0
    expect(visit.page.locator("#text")).to_be_in_viewport(ratio=1)
    expect(visit.page.locator("#hang-up")).to_be_in_viewport(ratio=1)
    face = visit.page.locator("#face").bounding_box()
    assert face is not None
    assert face["height"] > 844 * 0.4  # the face stays the largest thing
    visit.close()


def test_dark_surroundings_get_a_dark_page(browser: Browser, server: RunningServer) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        visit = FacePage(browser, server.url, color_scheme=scheme)
        colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = max(int(part) for part in re.findall(r"\d+", colour))
        visit.close()
    assert shades["light"] > 220
    assert shades["dark"] < 40
