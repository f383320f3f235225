"""A player in Chromium that keeps account of what it was given: when pictures came, and what the browser says about its buffers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route

PLAYER = (Path(__file__).parent / "viewer.js").read_text()
FIRST_PICTURE_MS = 20_000


class Viewer:
    """One player of the media server at `media_url`. change: what becomes of the server's SDP answer.

    to_first_picture: milliseconds from the ready offer to the first decoded picture.
    """

    def __init__(self, browser: Browser, media_url: str, avatar: str = "demo", *, change: Callable[[str], str] | None = None):
        self.page = browser.new_context().new_page()
        self.page.goto(f"{media_url}/health")
        self.page.mouse.click(5, 5)  # a browser plays sound only after a gesture
        if change is not None:
            self.page.route("**/offer", lambda route: _changed(route, change))
        from_begin, from_offer = self.page.evaluate(PLAYER, {"avatar": avatar, "limit": FIRST_PICTURE_MS})
        self.to_first_picture: float = from_offer
        self.from_begin: float = from_begin

    def say(self, text: str) -> None:
        self.page.evaluate("text => viewer.say(text)", text)

    def interrupt(self) -> None:
        self.page.evaluate("() => viewer.interrupt()")

    def wait(self, seconds: float) -> None:
        """Let the page play."""
        self.page.wait_for_timeout(seconds * 1000)

    def stats(self) -> dict[str, Any]:
        """The browser's inbound-rtp reports, "audio" and "video", and "now" in milliseconds."""
        found: dict[str, Any] = self.page.evaluate("() => viewer.stats()")
        return found

    def arrivals(self, since: float = 0.0) -> list[float]:
        """When decoded pictures came, milliseconds on the page's clock, from `since` on."""
        found: list[float] = self.page.evaluate("since => viewer.arrivals.filter((time) => time >= since)", since)
        return found

    def close(self) -> None:
        self.page.evaluate("() => viewer.close()")
        self.page.context.close()


def _changed(route: Route, change: Callable[[str], str]) -> None:
    answer = route.fetch()
    body = answer.json()
    if "sdp" in body:  # else the page says what the server has answered
        body["sdp"] = change(body["sdp"])
    route.fulfill(response=answer, json=body)
