"""Minutes of idling, speaking and interrupting in Chromium: the picture never stands still for longer than 150 ms.

python -m soak.browser_freezes [SECONDS]
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "temp" / "tests"))

from browser import chromium
from running_server import running_server
from viewer import Viewer

SECONDS = 300
LONGEST = 150.0  # ms between two pictures
TEXT = "The moon moves around the earth once a month. A prime number has exactly two divisors. Please write down what you already know."
SETTLE = 3.0  # seconds: a browser sizes its buffers when a call begins


@dataclass(frozen=True, slots=True)
class Watched:
    """freezes: as the browser counts them. gaps: ms between decoded pictures, the longest first. concealed: part of the sound, 0..1."""

    freezes: int
    gaps: list[float]
    concealed: float
    key_frames_wanted: int


def watch(viewer: Viewer, seconds: float) -> Watched:
    """Cycles of 3 s idle, 4 s speech, 1 s after it was interrupted."""
    viewer.wait(SETTLE)
    before = viewer.stats()
    while viewer.stats()["now"] - before["now"] < seconds * 1000:
        viewer.wait(3)
        viewer.say(TEXT)
        viewer.wait(4)
        viewer.interrupt()
        viewer.wait(1)
    after, arrivals = viewer.stats(), viewer.arrivals(before["now"])
    gaps = sorted((later - earlier for earlier, later in itertools.pairwise(arrivals)), reverse=True)
    sound = [report["audio"] for report in (before, after)]
    concealed = (sound[1]["concealedSamples"] - sound[0]["concealedSamples"]) / (
        sound[1]["totalSamplesReceived"] - sound[0]["totalSamplesReceived"]
    )
    picture = [report["video"] for report in (before, after)]
    return Watched(picture[1]["freezeCount"] - picture[0]["freezeCount"], gaps, concealed, picture[1]["pliCount"] - picture[0]["pliCount"])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server, chromium() as browser:
        viewer = Viewer(browser, server.media_url)
        found = watch(viewer, seconds)
        viewer.close()
    longest = ", ".join(f"{gap:.0f}" for gap in found.gaps[:5])
    print(
        f"{seconds:g} s in Chromium, load {os.getloadavg()[0]:.1f}: {found.freezes} freezes, longest gaps {longest} ms, "
        f"{found.concealed:.2%} of the sound concealed, {found.key_frames_wanted} key frames asked for."
    )
    assert found.freezes == 0, "the browser counts freezes"
    assert found.gaps[0] <= LONGEST, "a picture stood still"


if __name__ == "__main__":
    main()
