"""A renderer process's service within this process, with a named engine that remembers its batches; and workers that join it."""

from __future__ import annotations

import os
import queue
import socket
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fakes import MOUTH, fake_frame

from gpuserver.domain import FaceCrop, Floats, Generation, LatentFace, Listener, MouthJob
from gpuserver.errors import DeviceFull, DeviceLost
from gpuserver.media_router.renderers import listen
from gpuserver.musetalk.neural.musetalk_listener import MuseTalkListener
from gpuserver.musetalk.neural.whisper_features import LAYERS, TOKENS
from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.faces import unpasted
from gpuserver.musetalk.render_service.messages import Join, Ready
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.render_service.remote_engine import RemoteEngine
from gpuserver.musetalk.render_service.service import Load, Painter, RenderService
from gpuserver.musetalk.render_service.standstill import Standstill

WIDTH = 2
PATIENCE = 20.0  # seconds, for what takes none


class FakeEar:
    """The states of a step are its number and the loudest of the spectrogram."""

    width = WIDTH

    def __init__(self) -> None:
        self.error: Exception | None = None

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        if self.error is not None:
            raise self.error
        states = np.zeros((end - begin, LAYERS, WIDTH), np.float32)
        states[:, :, 0] = np.arange(begin, end)[:, None]
        states[:, :, 1] = mel.max()
        return states


class FakeFaces:
    """Implements service.HearingEngine: paints each face grey, as bright as its row says; NaN: nothing; 66: it fails.

    Paints nothing before the gate is opened. batches: the rows' levels.
    """

    name = "fake faces"

    def __init__(self, max_batch: int = 4, *, gated: bool = False):
        self.max_batch = max_batch
        self.ear = FakeEar()
        self.batches: list[list[float]] = []
        self.begun = threading.Condition()
        self.gate = threading.Event()
        self.lost = False
        if not gated:
            self.gate.set()

    def listener(self) -> Listener:
        return MuseTalkListener(self.ear)

    def rest(self) -> Floats:
        return np.zeros((TOKENS, WIDTH), np.float32)

    def begin(self, jobs: Sequence[MouthJob]) -> _Painting:
        levels = [float(job.features.max()) for job in jobs]
        if 66.0 in levels:
            raise RuntimeError("the fake engine fails")
        with self.begun:
            self.batches.append(levels)
            self.begun.notify_all()
        return _Painting(self, levels)

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop | None]:
        return self.begin(jobs).crops()

    def await_batches(self, count: int) -> None:
        with self.begun:
            assert self.begun.wait_for(lambda: len(self.batches) >= count, PATIENCE)


class _Painting:
    def __init__(self, engine: FakeFaces, levels: Sequence[float]):
        self._engine = engine
        self._levels = levels

    def crops(self) -> list[FaceCrop | None]:
        assert self._engine.gate.wait(PATIENCE)
        if self._engine.lost:
            raise DeviceLost("The fake device fell off the bus.")
        return [None if np.isnan(level) else _face(level) for level in self._levels]


def _face(level: float) -> FaceCrop:
    frame = prepared_job(level).frame
    assert frame.generated is not None
    return unpasted(np.full((256, 256, 3), int(level), np.uint8), frame, frame.generated)


def prepared_job(level: float, due: float = 0.0, generation: Generation | None = None, *, opening: bool = False) -> MouthJob:
    latent = LatentFace(np.zeros((8, 32, 32), np.float16), MOUTH, np.full((MOUTH.height, MOUTH.width), 255, np.uint8), MOUTH)
    row = np.full((TOKENS, WIDTH), level, np.float32)
    return MouthJob(replace(fake_frame(0), generated=latent), row, due, generation or Generation(1), opening)


class EndingSocket(socket.socket):
    """A listening socket on which one process accepts no more, while others may."""

    ended = False

    def accept(self) -> tuple[socket.socket, Any]:
        connected, address = super().accept()
        if self.ended:
            connected.close()
            raise OSError("this process has ended")
        return connected, address


class ServiceRig:
    """A service on a socket, with workers. lost: why the service said that it has no device any more."""

    def __init__(self, engine: FakeFaces | None = None, load: Load | None = None):
        self.engine = engine or FakeFaces()
        self.lost: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._folder = tempfile.TemporaryDirectory(prefix="r")  # a socket's path has at most 107 bytes
        self.path = Path(self._folder.name) / "renderer-1.sock"
        self.listening = listen(self.path)
        self._load = load or (lambda: [Painter(self.engine, 450.0)])
        self._received = threading.Semaphore(0)
        self._workers: list[RemoteDevice] = []
        self.start_again()

    def start_again(self) -> None:
        """After end(): the service is that of a new process."""
        self._accepting = EndingSocket(fileno=os.dup(self.listening.fileno()))
        self.standstill = Standstill()
        self.service = RenderService(self._load, self.lost.put, self.standstill)
        self._count_orders()
        self._serving = threading.Thread(target=self.service.serve, args=(self._accepting,))
        self._serving.start()

    def join(self) -> RemoteEngine:
        """Another worker. Raises NoDevice."""
        worker = RemoteDevice(self.path)
        self._workers.append(worker)
        [device] = worker()
        assert isinstance(device.engine, RemoteEngine)
        return device.engine

    def await_orders(self, count: int) -> None:
        """So many more have reached the service's schedule."""
        for _ in range(count):
            assert self._received.acquire(timeout=PATIENCE)

    def occupy(self, engine: RemoteEngine) -> list[Future[FaceCrop | None]]:
        """The device has the levels 1 and 2, and room for no more; what is ordered now waits for the gate."""
        futures = []
        for level in (1, 2):
            futures.append(engine.submit(prepared_job(level)))
            self.engine.await_batches(level)
        self.await_orders(2)
        return futures

    def _count_orders(self) -> None:
        submit = self.service._renderer.submit

        def counted(job: MouthJob) -> Future[FaceCrop | None]:
            future = submit(job)
            self._received.release()
            return future

        self.service._renderer.submit = counted  # type: ignore[method-assign]

    def connect(self) -> Channel:
        """A worker that says what it likes."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return Channel(connection, takes_descriptor=True)

    def joined(self) -> Channel:
        """The same, after it was welcomed."""
        channel = self.connect()
        channel.send(Join())
        assert isinstance(channel.receive(), Ready)
        return channel

    def end(self) -> None:
        """As if the process were killed; the socket stays."""
        self.engine.gate.set()
        self._accepting.ended = True
        self.connect().close()
        self._serving.join(PATIENCE)
        self._accepting.close()
        self.service.close()
        assert self.standstill.in_work == 0

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self.end()
        self.listening.close()
        self._folder.cleanup()


MEMORY_FULL = DeviceFull("The fake device has no memory left.")
