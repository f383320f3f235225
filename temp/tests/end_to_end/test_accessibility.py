"""The page for those who see little, use no mouse, or want no motion: names, contrast, keys, announcements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from face_page import FacePage
from playwright.sync_api import Browser, expect
from running_server import RunningServer

LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3

NAMELESS = """() => {
  const name = (element) => [element.getAttribute("aria-label"), element.innerText, element.title,
    ...(element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent),
    ...[...(element.labels ?? [])].map((label) => label.innerText)].filter(Boolean).join(" ").trim();
  const seen = [...document.querySelectorAll("button, a[href], input, select, textarea, progress, [role=radiogroup], dialog, [popover]")];
  return seen.filter((element) => element.checkVisibility() && !name(element)).map((element) => element.outerHTML);
}"""

# The contrast of every text whose background is a plain colour, as WCAG 2.2 defines it; text over a picture has none.
FAINT = """(least) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colour) => {
    const [r, g, b] = [...rgba(colour)].map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor, alpha = rgba(colour)[3];
      if (alpha === 255) return colour;
      if (alpha > 0) return null;
    }
    return "white";
  };
  const isText = (node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim();
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && !element.closest(":disabled, #stage") && [...element.childNodes].some(isText));
  const faint = [];
  for (const element of texts) {
    const behind = ground(element);
    if (!behind) continue;
    const [low, high] = [luminance(getComputedStyle(element).color), luminance(behind)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < least) faint.push(`${contrast.toFixed(2)} ${element.outerHTML.slice(0, 120)}`);
  }
  return [texts.length, faint];
}"""


@pytest.fixture(params=["light", "dark"])
def visit(request: pytest.FixtureRequest, browser: Browser, shared_server: RunningServer) -> Iterator[FacePage]:
    size = {"width": 1280, "height": 800}
    visit = FacePage(browser, shared_server.url, viewport=size, locale="en-GB", color_scheme=request.param, reduced_motion="reduce")
    yield visit
    visit.close()


def check(visit: FacePage, least_texts: int) -> None:
    assert visit.page.evaluate(NAMELESS) == []
    count, faint = visit.page.evaluate(FAINT, LEAST_CONTRAST)
    assert faint == []
    assert count >= least_texts


def test_everything_has_a_name_and_can_be_read(visit: FacePage) -> None:
    check(visit, 6)
    visit.page.click("#lobby [popovertarget=settings]")
    check(visit, 12)
    visit.page.keyboard.press("Escape")
    visit.page.click("#add")
    check(visit, 12)
    visit.page.keyboard.press("Escape")
    visit.call("demo")
    visit.write("Say this, please.")
    visit.wait_until("speaking")
    visit.page.click("#stats-toggle")
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    visit.page.click("#trace summary")
    check(visit, 12)


def test_a_screen_reader_is_told_whole_answers_and_not_every_word(browser: Browser, shared_server: RunningServer) -> None:
    visit = FacePage(browser, shared_server.url, locale="en-GB")
    visit.call("demo")
    assert visit.page.get_attribute("#log", "aria-live") == "off"
    visit.write("How are you?")
    expect(visit.page.locator("#announcer[aria-live=polite]")).to_contain_text("You said: How are you? No language model is reachable")
    visit.close()


def test_escape_closes_what_is_open_before_it_stops_the_voice(browser: Browser, shared_server: RunningServer) -> None:
    visit = FacePage(browser, shared_server.url, locale="en-GB")
    visit.call("demo")
    visit.write("This is a rather long sentence, so that there is time to look at the voices while it is spoken.")
    visit.wait_until("speaking")
    visit.page.click("#stage [popovertarget=settings]")
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#settings")).to_be_hidden()
    assert visit.page.get_attribute("#stage", "data-state") == "speaking"
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    expect(visit.page.locator(".bubble[data-interrupted]")).to_be_visible()
    visit.close()


@pytest.mark.parametrize(("motion", "films"), [("no-preference", 1), ("reduce", 0)])
def test_a_face_comes_alive_under_the_pointer_unless_motion_is_unwanted(
    browser: Browser, shared_server: RunningServer, motion: str, films: int
) -> None:
    visit = FacePage(browser, shared_server.url, reduced_motion=motion)
    card = visit.page.locator(".card[data-avatar-id=demo] .card-face")
    card.hover()
    if films:
        expect(card.locator("video[data-playing]")).to_be_visible(timeout=30_000)
        visit.page.mouse.move(0, 0)
    expect(card.locator("video")).to_have_count(0)
    assert len([url for url in visit.requested if "idle.mp4" in url]) >= films
    expect(card.locator("img")).to_be_visible()
    visit.close()


def test_nothing_moves_while_the_page_loads(browser: Browser, shared_server: RunningServer) -> None:
    visit = FacePage(browser, shared_server.url, viewport={"width": 1280, "height": 800})
    shift = """() => new Promise((resolve) => {
        let moved = 0;
        new PerformanceObserver((list) => { for (const entry of list.getEntries()) moved += entry.value; })
          .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => resolve(moved), 1000);
    })"""
    assert visit.page.evaluate(shift) < 0.1  # what web.dev calls good
    visit.close()
