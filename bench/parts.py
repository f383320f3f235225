"""Figures of single parts: the warp engine's speed, avatar creation, the management process."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np

from gpuserver.config import Settings
from gpuserver.domain import Avatar, Generation, MouthJob, Speech, TimedViseme, Viseme
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.warp.warp_engine import WarpEngine

HEAVY = ("torch", "cv2", "av", "aiortc")


def warp_frames_per_second(avatar: Avatar, rounds: int = 5) -> float:
    """Mouths per second on one core, median of the rounds; every frame of the loop with an open mouth in turn."""
    cv2.setNumThreads(1)
    engine, generation = WarpEngine(), Generation(1)
    listener = engine.listener()
    visemes = tuple(TimedViseme(Viseme.AA if i % 2 else Viseme.E, i * 0.1, (i + 1) * 0.1) for i in range(40))
    noise = (np.random.default_rng(1).normal(0, 3000, 4 * 24_000)).astype(np.int16)
    rows = np.concatenate([listener.hear(Speech(noise, 24_000, "", visemes)), listener.finish()])
    jobs = [MouthJob(avatar.frame_at(i), row, 0.0, generation) for i, row in enumerate(rows)]
    batches = [jobs[start : start + engine.max_batch] for start in range(0, len(jobs), engine.max_batch)]
    speeds = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        for batch in batches:
            engine.render(batch)
        speeds.append(len(jobs) / (time.process_time() - begun))
    return statistics.median(speeds[1:])  # the first time it looks at the frames


def creation_seconds(manager: AvatarManager, clip: Path, repeats: int = 3) -> float:
    """Median time from the call to the published avatar, child process included."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        manager.create_from_file("bench_clip", clip, replace=True)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


class ManagementProcess:
    """The management API started alone on a free port, for its start time and its memory."""

    def __init__(self, port: int, folder: Path):
        self._health = f"http://127.0.0.1:{port}/health"
        environment = os.environ | {"MANAGEMENT_API_PORT": str(port), "MEDIA_PORT": str(port + 1), "AVATARS_DIR": str(folder / "avatars")}
        self._begun = time.perf_counter()
        self._process = subprocess.Popen([sys.executable, "-m", "gpuserver", "management"], env=environment, stderr=subprocess.DEVNULL)

    async def ready_seconds(self, limit: float = 20) -> float:
        """Until /health answers; 503 is an answer, the media server is not there."""
        while time.perf_counter() - self._begun < limit:
            try:
                await asyncio.to_thread(urllib.request.urlopen, self._health, timeout=1)
            except urllib.error.HTTPError:
                return time.perf_counter() - self._begun
            except OSError:
                await asyncio.sleep(0.01)
            else:
                return time.perf_counter() - self._begun
        raise TimeoutError("the management process does not answer")

    def memory_mb(self) -> float:
        """Resident memory."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def heavy_modules_of_management() -> list[str]:
    """Which of torch, cv2, av, aiortc an import of the management API loads."""
    code = f"import sys, gpuserver.management_api; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demo_avatar(settings: Settings) -> AvatarManager:
    manager = AvatarManager(settings)
    manager.start()
    return manager
