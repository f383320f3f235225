"""What it costs that mouths come from another process: python bench/shared_renderer.py [--json FILE] [--mouths N]

The same mouths are drawn in this process and in a renderer process, over the product's own renderer, sockets and shared memory; rows and
faces have the sizes of the official networks. The network itself is left out: its place takes an engine that has its faces ready, so
that what is left is the way there and back. No GPU is needed.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from statistics import median, quantiles

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.table import Figure, as_markdown, at_most, machine, write_json
from gpuserver.domain import AvatarFrame, Box, FaceCrop, Floats, Generation, LatentFace, Listener, MouthJob
from gpuserver.media_router.renderers import listen
from gpuserver.musetalk.neural.face_paste import paste
from gpuserver.musetalk.neural.musetalk_listener import MuseTalkListener
from gpuserver.musetalk.neural.whisper_features import LAYERS, TOKENS
from gpuserver.musetalk.render_service.faces import unpasted
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.render_service.service import Painter, RenderService
from gpuserver.musetalk.renderer import Device, Renderer
from gpuserver.musetalk.warp.warp_engine import WarpEngine

WIDTH = 384  # of Whisper tiny
BATCH = 8
ROUNDS = 5
PATIENCE = 60.0  # seconds


class ReadyEar:
    """Hears nothing, at once."""

    width = WIDTH

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        return np.zeros((end - begin, LAYERS, WIDTH), np.float32)


class ReadyFaces:
    """Implements service.HearingEngine: takes latents and rows as a device would, and has a face for each."""

    name = "musetalk"
    max_batch = BATCH

    def __init__(self, paste: Callable[..., FaceCrop]):
        self.ear = ReadyEar()
        self._paste = paste
        self._faces = np.random.default_rng(1).integers(0, 256, (BATCH, 256, 256, 3), np.uint8)

    def listener(self) -> Listener:
        return MuseTalkListener(self.ear)

    def rest(self) -> Floats:
        return np.zeros((TOKENS, WIDTH), np.float32)

    def begin(self, jobs: Sequence[MouthJob]) -> ReadyDrawing:
        np.stack([job.features for job in jobs])
        np.stack([job.frame.generated.latent for job in jobs if job.frame.generated is not None])
        return ReadyDrawing(jobs, self._faces, self._paste)

    def render(self, jobs: Sequence[MouthJob]) -> Sequence[FaceCrop | None]:
        return self.begin(jobs).crops()


class ReadyDrawing:
    def __init__(self, jobs: Sequence[MouthJob], faces: np.ndarray, paste: Callable[..., FaceCrop]):
        self._jobs, self._faces, self._paste = jobs, faces, paste

    def crops(self) -> Sequence[FaceCrop | None]:
        return [self._paste(face, job.frame, job.frame.generated) for face, job in zip(self._faces, self._jobs, strict=False)]


class Measured:
    """Mouths that a renderer draws: one at a time, and as many as it takes."""

    def __init__(self, device: Device):
        self.renderer = Renderer(WarpEngine())
        self.renderer.start()
        self.renderer.add_devices([device], lambda job: True)
        self._jobs = [_job(index) for index in range(BATCH)]

    def latencies(self, count: int) -> list[float]:
        """Milliseconds of single mouths, one after the other."""
        found = []
        for index in range(count):
            begun = time.perf_counter()
            self._order(index).result(PATIENCE)
            found.append((time.perf_counter() - begun) * 1000)
        return found

    def draw(self, count: int) -> float:
        """Mouths a second, when all are ordered at once."""
        begun = time.perf_counter()
        wait([self._order(index) for index in range(count)], PATIENCE)
        return count / (time.perf_counter() - begun)

    def _order(self, index: int) -> Future[FaceCrop | None]:
        return self.renderer.submit(self._jobs[index % BATCH])


def _job(index: int) -> MouthJob:
    """A face of 220x220 in a picture of 512x512, of which the lower half shows."""
    random = np.random.default_rng(index)
    picture = random.integers(16, 236, (768, 512), np.uint8)
    latent = random.normal(0, 1, (8, 32, 32)).astype(np.float16)
    face = LatentFace(latent, Box(146, 120, 366, 340), np.full((120, 220), 255, np.uint8), Box(146, 220, 366, 340))
    frame = AvatarFrame(index, picture, np.zeros((468, 2), np.float32), face.box, 0.0, face)
    return MouthJob(frame, random.normal(0, 1, (TOKENS, WIDTH)).astype(np.float32), 0.0, Generation(1))


class Process:
    """A renderer process with ready faces."""

    def __init__(self, folder: Path):
        self.path = folder / "renderer.sock"
        self._listening = listen(self.path)
        descriptor = self._listening.fileno()
        self._process = subprocess.Popen([sys.executable, __file__, "--serve", str(descriptor)], pass_fds=[descriptor])

    def cpu_seconds(self) -> float:
        """Of its whole life."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.close()


def serve(descriptor: int) -> None:
    RenderService(lambda: [Painter(ReadyFaces(unpasted), 450.0)], lambda _reason: None).serve(socket.socket(fileno=descriptor))


def measure(mouths: int) -> list[Figure]:
    """The medians of several rounds, the two ways in turn."""
    here = Measured(Device(ReadyFaces(paste)))
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        process = Process(Path(folder))
        there, other = (Measured(RemoteDevice(process.path)()[0]) for _ in range(2))
        try:
            for each in (here, there, other):
                each.draw(200)
            rounds = [_round(here, there, other, process, mouths) for _ in range(ROUNDS)]
        finally:
            for each in (here, there, other):
                each.renderer.close()
            process.end()
    return _figures({key: median(each[key] for each in rounds) for key in rounds[0]}, mouths)


def _round(here: Measured, there: Measured, other: Measured, process: Process, mouths: int) -> dict[str, float]:
    alone, shared = here.latencies(_singles(mouths)), there.latencies(_singles(mouths))
    cpu_alone, speed_alone = _cpu(lambda: here.draw(mouths))
    before = process.cpu_seconds()
    cpu_worker, speed_shared = _cpu(lambda: there.draw(mouths))
    cpu_renderer = process.cpu_seconds() - before
    return {
        "latency_alone_ms": median(alone),
        "latency_shared_ms": median(shared),
        "added_p50_ms": median(shared) - median(alone),
        "added_p95_ms": quantiles(shared, n=20)[-1] - quantiles(alone, n=20)[-1],
        "cpu_alone_ms": 1000 * cpu_alone / mouths,
        "cpu_worker_ms": 1000 * cpu_worker / mouths,
        "cpu_renderer_ms": 1000 * cpu_renderer / mouths,
        "cpu_added_ms": 1000 * (cpu_worker + cpu_renderer - cpu_alone) / mouths,
        "speed_alone": speed_alone,
        "speed_shared": speed_shared,
        "speed_two": _both(there, other, mouths),
    }


def _figures(found: Mapping[str, float], mouths: int) -> list[Figure]:
    singles, many = f"{_singles(mouths)} single mouths, one after the other", f"{mouths} mouths, ordered at once"

    def plain(key: str, what: str, unit: str, how: str) -> Figure:
        return Figure(key, what, found[key], unit, "–", True, how)

    return [
        plain("latency_alone_ms", "order to mouth, in one process, p50", "ms", singles),
        plain("latency_shared_ms", "order to mouth, over a renderer process, p50", "ms", singles),
        at_most("added_p50_ms", "added by the process, p50", found["added_p50_ms"], 2.0, "ms", singles),
        plain("added_p95_ms", "added by the process, p95", "ms", singles),
        plain("cpu_alone_ms", "CPU per mouth, in one process", "ms", many),
        plain("cpu_worker_ms", "CPU per mouth, in the worker", "ms", many),
        plain("cpu_renderer_ms", "CPU per mouth, in the renderer process", "ms", many),
        at_most("cpu_added_ms", "CPU per mouth that the process adds", found["cpu_added_ms"], 1.0, "ms", many),
        plain("speed_alone", "mouths a second, in one process", "", many),
        plain("speed_shared", "mouths a second, one worker", "", many),
        plain("speed_two", "mouths a second, two workers together", "", f"{many}, half by each, both in one process"),
    ]


def _singles(mouths: int) -> int:
    return max(mouths // 4, 20)


def _cpu(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds of this process's CPU, and the result."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def _both(one: Measured, other: Measured, mouths: int) -> float:
    """Mouths a second of two workers at the same time."""
    threads = [threading.Thread(target=each.draw, args=(mouths // 2,)) for each in (one, other)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return mouths / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mouths", type=int, default=2000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    figures = measure(arguments.mouths)
    print(f"{machine()}\n\n{as_markdown(figures)}")
    if arguments.json is not None:
        write_json(figures, arguments.json)


if __name__ == "__main__":
    main()
