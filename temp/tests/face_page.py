"""Our page at /, used as a person uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser import IN_STEP, OBSERVE, SETTLE, STEP_MS
from playwright.sync_api import Browser, Page, expect

PREPARE_MS = 60_000  # an avatar from a clip of a few seconds, on a busy machine
IN_CALL = "#stage[data-state=listening][data-picture=live]"


class FacePage:
    """One visitor. complaints: what the browser's console reports as an error. requested: every address that was asked for.

    key: the API key, for a server that asks for one.
    """

    def __init__(self, browser: Browser, url: str, *, key: str | None = None, **context: Any):
        self.page: Page = browser.new_context(**context).new_page()
        self.page.add_init_script(OBSERVE)
        self.page.set_default_timeout(STEP_MS)
        expect.set_options(timeout=STEP_MS)
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("websocket", lambda socket: self.requested.append(socket.url))
        self.page.goto(url)
        if key is not None:
            self.type_key(key)
        self.page.wait_for_selector("#gallery[aria-busy=false]")

    def close(self) -> None:
        self.page.context.close()

    def type_key(self, key: str) -> None:
        """Answer the server's question for an API key."""
        self.page.fill("#key-input", key)
        self.page.press("#key-input", "Enter")

    @property
    def avatar_ids(self) -> list[str]:
        return [card.get_attribute("data-avatar-id") or "" for card in self.page.locator(".card").all()]

    @property
    def session_id(self) -> str:
        return self.page.get_attribute("#call", "data-session-id") or ""

    @property
    def last_answer(self) -> str:
        return self.page.locator(".bubble[data-role=assistant]").last.inner_text()

    def choose_file(self, video: Path) -> None:
        self.page.click("#add")
        self.page.set_input_files("#upload-file", video)

    def add(self, video: Path) -> str:
        """Upload the video under the name that the page suggests; that name."""
        self.choose_file(video)
        avatar_id = self.page.input_value("#upload-id")
        self.page.click("#upload-send")
        self.page.wait_for_selector("#upload-result", timeout=PREPARE_MS)
        self.page.click("#upload-cancel")
        self.page.wait_for_selector(f".card[data-avatar-id={avatar_id}]")
        return avatar_id

    def call(self, avatar_id: str) -> None:
        """Call it and wait for the picture."""
        self.page.click(f".card[data-avatar-id={avatar_id}] .card-face")
        self.page.wait_for_selector(IN_CALL)

    def write(self, text: str, mode: str = "ask") -> None:
        """Send a question, or with mode "say" a text to be spoken as it is."""
        self.page.check(f"input[name=mode][value={mode}]", force=True)
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def wait_until(self, state: str) -> None:
        self.page.wait_for_selector(f"#stage[data-state={state}]", timeout=STEP_MS * 2)

    def hear_out(self) -> None:
        """Wait until an answer has begun and ended."""
        self.wait_until("speaking")
        self.wait_until("listening")

    def settle(self) -> None:
        """Wait until the browser plays sound and picture in step; after the start of a call it takes a few seconds for it."""
        self.page.evaluate(SETTLE, [IN_STEP * 1000 / 2, STEP_MS * 2])

    def hang_up(self) -> None:
        self.page.click("#hang-up")
        self.page.wait_for_selector("#lobby:not([hidden])")
