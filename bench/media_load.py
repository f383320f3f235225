"""Sessions between a media process and counting browsers: what the media process pays for them, and what arrives."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gpuserver.domain import FPS

ROOT = Path(__file__).parents[1]


class Child:
    """A process that answers a line of JSON with a line of JSON."""

    def __init__(self, module: str, *arguments: str, core: int | None = None):
        command = [*(() if core is None else ("taskset", "-c", str(core))), sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._send({"end": True})
        else:
            self._process.kill()
        self._process.wait(60)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._send(question)
        return self.listen()

    def listen(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


@dataclass(frozen=True, slots=True)
class Load:
    """cores: of the media process, per session that gets 25 pictures per second. fps: pictures per second that arrived, of the
    session with the fewest. kilobits: per second and session. receiver_cores: of the browsers' process, all sessions together."""

    cores: float
    fps: float
    kilobits: float
    receiver_cores: float


def measure(mode: str, avatar: Path, sessions: int, seconds: float, *, settle: float = 4.0, core: int | None = None) -> Load:
    """Connect, let the start pass, then measure. core: the one that the media process may use, None for all."""
    with Child("bench.media_sender", mode, str(avatar), core=core) as media, Child("bench.media_receiver") as browsers:
        media.listen()
        offers = browsers.ask({"offer": sessions})["offers"]
        browsers.ask({"answers": [media.ask({"offer": offer})["answer"] for offer in offers]})
        time.sleep(settle)
        cost, arrived = media.ask({"mark": True}), browsers.ask({"mark": True})
        time.sleep(seconds)
        cost_after, arrived_after = media.ask({"mark": True}), browsers.ask({"mark": True})
    wall = cost_after["wall"] - cost["wall"]
    pictures = [after - before for before, after in zip(arrived["pictures"], arrived_after["pictures"], strict=True)]
    volumes = [after - before for before, after in zip(arrived["bytes"], arrived_after["bytes"], strict=True)]
    return Load(
        (cost_after["cpu"] - cost["cpu"]) / max(1, sum(pictures)) * FPS,
        min(pictures) / wall,
        statistics.mean(volumes) * 8 / wall / 1000,
        (arrived_after["cpu"] - arrived["cpu"]) / wall,
    )
