"""Real processes: a renderer with a tiny MuseTalk, and a worker; what they say to each other is bit by bit what one process draws."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeEngine, loud
from render_service_rig import PATIENCE, FakeFaces, ServiceRig
from tiny_renderer_process import TinyRenderer, tiny_engine

from gpuserver.domain import Avatar, AvatarFrame, Box, FaceCrop, Floats, Generation, LatentFace, MouthJob, Speech
from gpuserver.musetalk.engines import Engines
from gpuserver.musetalk.neural.face_paste import paste
from gpuserver.musetalk.render_service.messages import Share
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.renderer import Device, Renderer

RATE = 16_000
LOADING_SECONDS = 60.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Iterator[TinyRenderer]:
    renderer = TinyRenderer()
    yield renderer
    renderer.close()


class Worker:
    """Engines and their renderer, as in a media worker."""

    def __init__(self, engines: Engines):
        self.engines = engines
        self.renderer = Renderer(engines.spare)
        self.renderer.start()
        engines.load(engines.sources[0], self.renderer)
        assert engines.name == "musetalk", engines.fallback

    def rows(self) -> Sequence[Floats]:
        listener = self.engines.listener()
        sound = (np.sin(np.arange(RATE // 10) / 15) * 9000).astype(np.int16)
        return [*listener.hear(Speech(sound, RATE, "")), *listener.finish()]

    def order(self, shown: Avatar, index: int, row: Floats) -> Future[FaceCrop | None]:
        return self.renderer.submit(MouthJob(shown.frame_at(index), row, 0.0, Generation(1)))

    def close(self) -> None:
        self.renderer.close()
        self.engines.close()


def avatar() -> Avatar:
    """Three frames of noise, prepared for MuseTalk."""
    random = np.random.default_rng(5)

    def frame(index: int) -> AvatarFrame:
        picture = random.integers(16, 235, (240, 200), np.uint8)  # 200x160
        latent = random.normal(0, 1, (8, 32, 32)).astype(np.float16)
        mask = random.integers(0, 256, (60, 100), np.uint8)
        face = LatentFace(latent, Box(41, 20, 150, 141), mask, Box(46, 70, 146, 130))
        return AvatarFrame(index, picture, np.zeros((468, 2), np.float32), face.box, 0.0, face)

    return Avatar("noise", 200, 160, [frame(index) for index in range(3)])


def test_mouths_of_two_workers_equal_those_of_one_process_bit_by_bit(tiny: TinyRenderer) -> None:
    tiny.start()
    alone = Worker(Engines([lambda: [Device(tiny_engine(paste))]], FakeEngine()))
    workers = [Worker(Engines([RemoteDevice(tiny.path)], FakeEngine())) for _ in range(2)]
    shown, rows = avatar(), alone.rows()
    assert len(rows) == 3
    for worker in workers:
        np.testing.assert_array_equal(worker.rows(), rows)
    expected = [alone.order(shown, index, row) for index, row in enumerate(rows)]
    shared = [workers[index % 2].order(shown, index, row) for index, row in enumerate(rows)]
    for theirs, ours in zip(map(_crop, expected), map(_crop, shared), strict=True):
        assert (ours.engine, ours.box) == (theirs.engine, theirs.box) == ("musetalk", Box(46, 70, 146, 130))
        for plane in ("y", "u", "v"):
            np.testing.assert_array_equal(getattr(ours, plane), getattr(theirs, plane))
    assert [worker.renderer.capacity() for worker in workers] == [25.0, 25.0]
    for each in (alone, *workers):
        each.close()


def _crop(future: Future[FaceCrop | None]) -> FaceCrop:
    crop = future.result(LOADING_SECONDS)
    assert crop is not None
    return crop


def test_a_killed_renderer_process_leaves_its_faces_to_the_spare_engine(tiny: TinyRenderer) -> None:
    tiny.start()
    worker = Worker(Engines([RemoteDevice(tiny.path)], FakeEngine()))
    rows = worker.rows()
    assert tiny.process is not None
    tiny.process.send_signal(signal.SIGSTOP)
    shown = avatar()
    futures = [worker.order(shown, index, row) for index, row in enumerate(rows)]
    assert not any(future.done() for future in futures)
    tiny.kill()
    wait(futures, PATIENCE)
    assert {crop.engine for future in futures if (crop := future.result(0))} == {"fake"}
    assert worker.engines.lost == list(worker.engines.sources)
    listener = worker.engines.listener()
    assert len(listener.hear(Speech(loud(9000, RATE), RATE, ""))) > 0  # heard for the spare engine alone
    worker.close()


WORKER = """
import signal, sys
from pathlib import Path
from render_service_rig import prepared_job
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
[device] = RemoteDevice(Path(sys.argv[1]))()
futures = [device.engine.submit(prepared_job(50)) for _ in range(24)]
print("ordered", flush=True)
signal.pause()
"""


def test_a_killed_worker_leaves_nothing_behind() -> None:
    in_memory, in_files = _memory(), set(Path("/dev/shm").iterdir())
    rig = ServiceRig(FakeFaces(gated=True))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", WORKER, str(rig.path)], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"ordered\n"
        rig.await_orders(24)
        witness = rig.joined()
        assert witness.receive() == Share(225.0)
        worker.kill()
    assert witness.receive() == Share(450.0)
    witness.close()
    rig.close()
    assert sum(len(batch) for batch in rig.engine.batches) <= 2 * rig.engine.max_batch  # those that the device had already
    assert _memory() == in_memory
    assert set(Path("/dev/shm").iterdir()) == in_files


def _memory() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count("gpuserver-faces")
