"""A page that does what LiveTalking's stock pages do, opened in Chromium at the media server's own address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser import IN_STEP, OBSERVE, SETTLE, STEP_MS
from playwright.sync_api import Browser, Page

HTML = (Path(__file__).parent / "livetalking_page.html").read_text()
SHOWN = "document.getElementById('video').videoWidth > 0"
# For recorder.js, which records the element "face".
FACE = """() => {
  const stream = new MediaStream(["video", "audio"].flatMap((kind) =>
    document.getElementById(kind).srcObject.getTracks().filter((track) => track.kind === kind)));
  document.body.append(Object.assign(document.createElement("video"), { id: "face", muted: true, srcObject: stream }));
}"""
UNTIL_SPEAKING_IS = "async (wanted) => { while ((await isSpeaking()) !== wanted); }"


class LiveTalkingPage:
    """One visitor. url: of the media server."""

    def __init__(self, browser: Browser, url: str):
        self._url = url
        self.page: Page = browser.new_context().new_page()
        self.page.add_init_script(OBSERVE)
        self.page.set_default_timeout(STEP_MS * 2)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route(f"{url}/page.html", lambda route: route.fulfill(body=HTML, content_type="text/html"))
        self.page.goto(f"{url}/page.html")

    def close(self) -> None:
        self.page.context.close()

    def start(self) -> None:
        """Connect, and wait for the picture."""
        self.page.evaluate("start()")
        self._see()

    def play_whep(self, avatar_id: str) -> str:
        """Connect as a WHEP player, and wait for the picture; the session's address."""
        status, address = self.page.evaluate("(path) => playWhep(path)", f"/whep/{avatar_id}")
        assert status == 201
        self._see()
        return str(address)

    def call(self, expression: str, argument: Any = None) -> Any:
        """The value of an expression of the page; `argument` is named so there."""
        return self.page.evaluate(f"(argument) => {expression}", argument)

    def settle(self) -> None:
        """Wait until the browser plays sound and picture in step."""
        self.page.evaluate(SETTLE, [IN_STEP * 1000 / 2, STEP_MS * 2])

    def write(self, text: str, mode: str) -> None:
        """Send a text; with mode "say" to be spoken as it is."""
        answer = self.call("human(argument[0], argument[1], true)", [text, "echo" if mode == "say" else "chat"])
        assert answer == {"code": 0, "msg": "ok"}

    def hear_out(self) -> None:
        """Wait until what was sent has been said, by asking as stock pages do."""
        self.page.evaluate(UNTIL_SPEAKING_IS, False)

    def _see(self) -> None:
        self.page.wait_for_function(SHOWN)
        self.page.evaluate(FACE)
