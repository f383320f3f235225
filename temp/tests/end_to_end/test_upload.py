"""From a file to a call: what the page shows while a face is made, how good it is, and that it can be stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from clips import Clip, write_clip
from face_page import IN_CALL, PREPARE_MS, FacePage
from playwright.sync_api import Browser, expect
from running_server import REPOSITORY, RunningServer, running_server

PORTRAIT = REPOSITORY / "gpuserver" / "musetalk" / "assets" / "portrait.png"

# Every text of the progress line and every position of the bar.
WATCH = """() => {
  globalThis.progressSeen = [];
  const look = () => progressSeen.push([document.getElementById("upload-stage").textContent, document.getElementById("upload-bar").value]);
  new MutationObserver(look).observe(document.getElementById("upload-stage"), { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("upload"), demo=False) as server:
        yield server


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[FacePage]:
    visit = FacePage(browser, server.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    yield visit
    visit.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "teacher.mp4", Clip(seconds=3, width=512, height=512, zoom=1.5))


def test_where_nobody_is_yet_the_page_asks_for_a_face(visit: FacePage) -> None:
    expect(visit.page.locator("#gallery[data-faces=none] #add")).to_be_visible()
    assert visit.avatar_ids == []


def test_the_progress_is_real_and_the_report_leads_to_the_call(visit: FacePage, clip: Path) -> None:
    visit.page.evaluate(WATCH)
    visit.choose_file(clip)
    visit.page.click("#upload-send")
    expect(visit.page.locator("#upload-title")).to_have_text("teacher is ready", timeout=PREPARE_MS)
    seen = visit.page.evaluate("progressSeen")
    kinds = [text.split("…")[0] for text, _ in seen]
    assert kinds[0] == "Uploading"
    assert kinds.count("Finding the face") > 2
    finding = [position for text, position in seen if text.startswith("Finding the face")]
    assert finding == sorted(finding)
    report = visit.page.locator("#upload-result")
    expect(report).to_contain_text("Size of the face")
    expect(report).to_contain_text("Lips at rest")
    expect(report.locator("dd").filter(has_text="3.0 of 3.0 s").locator(".mark")).to_have_text("Good")
    expect(visit.page.locator("#upload-call")).to_be_focused()
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector(IN_CALL)
    assert visit.page.inner_text("#call-name") == "teacher"
    visit.hang_up()


def test_a_picture_makes_a_face_whose_background_can_be_blurred(visit: FacePage, server: RunningServer) -> None:
    visit.choose_file(PORTRAIT)
    assert visit.page.input_value("#upload-id") == "portrait"
    visit.page.check("#upload-blur")
    visit.page.click("#upload-send")
    expect(visit.page.locator("#upload-title")).to_have_text("portrait is ready", timeout=PREPARE_MS)
    expect(visit.page.locator("#upload-result")).not_to_contain_text("Used of the video")
    info = httpx.get(f"{server.url}/v1/avatars/portrait").json()
    assert info["apply_blur"] is True
    visit.page.click("#upload-cancel")
    expect(visit.page.locator("#lobby-message")).to_have_text("portrait is ready.")


def test_stopping_leaves_nothing_behind_and_the_file_can_be_sent_again(visit: FacePage, server: RunningServer, tmp_path: Path) -> None:
    visit.choose_file(write_clip(tmp_path / "long.mp4", Clip(seconds=20, width=512, height=512, zoom=1.5)))
    visit.page.click("#upload-send")
    expect(visit.page.locator("#upload-stage")).to_contain_text("Finding the face", timeout=PREPARE_MS)
    visit.page.click("#upload-cancel")
    expect(visit.page.locator("#upload-error")).to_have_text("Stopped. Nothing was kept.", timeout=PREPARE_MS)
    assert "long" not in httpx.get(f"{server.url}/v1/avatars").json()["avatars"]
    expect(visit.page.locator("#upload-send")).to_be_enabled()
    assert visit.page.input_value("#upload-id") == "long"


def test_advice_is_given_in_the_language_of_the_page(browser: Browser, server: RunningServer) -> None:
    visit = FacePage(browser, server.url, locale="zh-CN")
    shown = visit.page.evaluate(
        """async () => {
            const { reportView } = await import("/static/report.js");
            const advice = ["The mouth is only 27 pixels wide: film from nearer for clearer lips.", "Something new."];
            const figures = { source_frames: 250, used_frames: 100, face_width: 90, mouth_width: 27, mouth_opening_at_rest: 0.1 };
            const more = { sharpness: 0.02, brightness: 40, loop_jerk: 0, advice };
            const view = reportView({ ...figures, ...more });
            return [[...view.querySelectorAll("li")].map((line) => line.textContent), view.querySelectorAll("[data-good=false]").length];
        }"""
    )
    assert shown == [["嘴部只有 27 像素宽：请靠近拍摄，嘴唇会更清晰。", "Something new."], 4]
    visit.close()
