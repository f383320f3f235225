"""Debian's Chromium, driven headless, and what arrives in it: the decoded pictures and the sound of a call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, JSHandle, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
RECORDER = (Path(__file__).parent / "recorder.js").read_text()
# Keeps the page's latest connection, so that the browser can be asked about its buffers. Changes nothing that the page does.
OBSERVE = """{
  const Connection = RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Connection {
    constructor(...given) { super(...given); globalThis.observedConnection = this; }
  };
}"""
# Resolves when sound and picture are played in step, which the browser can do after the second report of the sender.
SETTLE = """async ([withinMs, limitMs]) => {
  const end = performance.now() + limitMs;
  while (performance.now() < end) {
    const playout = {};
    for (const each of (await observedConnection.getStats()).values())
      if (each.type === "inbound-rtp") playout[each.kind] = each.estimatedPlayoutTimestamp;
    if (Math.abs(playout.video - playout.audio) < withinMs) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error("sound and picture do not come into step");
}"""
SOUND_RATE = 48_000
IN_STEP = 0.08  # seconds between the playout of sound and picture; Chromium itself is content with half of it
STEP_MS = 15_000  # how long a page may take for one step before the test fails


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own. The test that needs it is skipped, saying so, where Chromium is not installed."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium): nothing is tested in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What a page was given between two moments. All times are seconds on the page's clock (performance.now).

    pictures: uint8 [n, height * 3 / 2, width], I420 as the browser decoded it. picture_times: float64 [n].
    sound: float32 [m], 48 kHz mono, -1..1, without holes. sound_start: when its first sample was heard.
    events: [(time, name)]: "key:Escape", "state:speaking" and the like. reports: what the browser says about itself, 4 per second.
    """

    pictures: NDArray[np.uint8]
    picture_times: NDArray[np.float64]
    sound: NDArray[np.float32]
    sound_start: float
    events: list[tuple[float, str]]
    reports: list[dict[str, float | None]]

    @property
    def ahead(self) -> float:
        """Seconds by which the browser, for reasons of its own, shows a picture before it plays the sound sent with it (median)."""
        return float(np.median([report["ahead"] for report in self.reports if report["ahead"] is not None])) / 1000

    @property
    def stretched(self) -> float:
        """Seconds of sound that the browser made up, left out or repeated, because it did not get along with its time."""
        first, last = self.reports[0]["stretched"] or 0, self.reports[-1]["stretched"] or 0
        return (last - first) / SOUND_RATE

    def when(self, name: str) -> float:
        """The time of the first event of this name. Raises LookupError."""
        found = [time for time, event in self.events if event == name]
        if not found:
            raise LookupError(f"{name} is not among {[event for _, event in self.events]}")
        return found[0]

    def pictures_between(self, start: float, stop: float) -> NDArray[np.uint8]:
        return self.pictures[(self.picture_times >= start) & (self.picture_times < stop)]

    def sound_between(self, start: float, stop: float) -> NDArray[np.float32]:
        first, last = (np.clip((time - self.sound_start) * SOUND_RATE, 0, len(self.sound)).astype(int) for time in (start, stop))
        return self.sound[first:last]


def rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An I420 picture as uint8 [height, width, 3]."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8)


class Recorder:
    """Records the face of a page that is in a call, from its construction to `stop`. The page must have been opened with OBSERVE."""

    def __init__(self, page: Page):
        self._page = page
        self._handle: JSHandle = page.evaluate_handle(f"({RECORDER})(observedConnection)")

    def stop(self) -> Recording:
        with self._page.expect_download() as download:
            self._handle.evaluate("recorder => recorder.stop()")
        path = download.value.path()
        recording = read_recording(path.read_bytes())
        self._handle.dispose()
        return recording


def read_recording(data: bytes) -> Recording:
    """Parse what recorder.js saves: one line of JSON, the pictures, the sound."""
    head, _, body = data.partition(b"\n")
    facts = json.loads(head)
    count, height, width = len(facts["pictures"]), facts["height"], facts["width"]
    size = height * 3 // 2 * width
    pictures = np.frombuffer(body, np.uint8, count * size).reshape(count, height * 3 // 2, width)
    sound = np.frombuffer(body, np.float32, offset=count * size)
    arrived, stamped = np.array(facts["pictures"], np.float64).T
    # The stamps are the player's own schedule; the arrival in the script adds its waiting, but is on the page's clock.
    times = stamped + np.median(arrived - stamped)
    sound, start = _without_holes(sound, facts["sounds"])
    events = [(time / 1000, name) for time, name in facts["events"]]
    return Recording(pictures, times / 1000, sound, start / 1000, events, facts["reports"])


def _without_holes(sound: NDArray[np.float32], chunks: list[list[float]]) -> tuple[NDArray[np.float32], float]:
    """Lay chunks of (time ms, samples) on one time line; a chunk that the script missed becomes silence."""
    start = chunks[0][0]
    line = np.zeros(round((chunks[-1][0] - start) * SOUND_RATE / 1000 + chunks[-1][1]) + SOUND_RATE // 100, np.float32)
    taken = end = 0
    for time, length in chunks:
        count = int(length)
        at = round((time - start) * SOUND_RATE / 1000)
        if at - end < count / 2:  # the stamps tremble; sound without a hole is laid end to end
            at = end
        end = at + count
        line[at:end] = sound[taken : taken + count][: max(0, len(line) - at)]
        taken += count
    return line[:end], start
