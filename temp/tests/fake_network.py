"""Named stand-ins for an engine on a device: it draws in the background, and is lost on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from fakes import MOUTH, FakeListener, fake_avatar, fake_crop

from gpuserver.domain import Avatar, FaceCrop, Floats, LatentFace, MouthJob, Speech
from gpuserver.errors import DeviceFull, DeviceLost

NETWORK_LUMA = 230  # what FakeNetwork paints the mouth with
TOKENS, WIDTH = 3, 2  # of its rows


class NetworkListener(FakeListener):
    """Rows float32 [n, 3, 2], full of the loudest sample of each frame. Asks the network whether its device is lost or full."""

    blocking = False

    def __init__(self, network: FakeNetwork):
        super().__init__()
        self._network = network

    def hear(self, speech: Speech) -> Floats:
        if self._network.lost:
            raise DeviceLost("The fake device fell off the bus.")
        if self._network.memory_full:
            raise DeviceFull("The fake device has no memory left.")
        return super().hear(speech)

    def _rows(self, end: int) -> Floats:
        rows = super()._rows(end)
        return np.broadcast_to(rows[:, :, None], (len(rows), TOKENS, WIDTH)).astype(np.float32)


class FakeDrawing:
    """What FakeNetwork.begin() gives."""

    def __init__(self, network: FakeNetwork, jobs: list[MouthJob]):
        self._network = network
        self._jobs = jobs

    def crops(self) -> list[FaceCrop | None]:
        return self._network.finish(self._jobs)


class FakeNetwork:
    """Implements PipelinedEngine. Draws every mouth brighter than FakeEngine does; None for a row of NaN.

    lost: the device is gone. memory_full: it cannot hear.
    """

    def __init__(self, name: str = "network", max_batch: int = 4):
        self.name = name
        self.max_batch = max_batch
        self.out_of_memory = 0
        self.lost = self.memory_full = False
        self.listeners = 0
        self.begun: list[list[MouthJob]] = []
        self.finished: list[list[MouthJob]] = []

    def listener(self) -> NetworkListener:
        self.listeners += 1
        return NetworkListener(self)

    def rest(self) -> Floats:
        return np.zeros((TOKENS, WIDTH), np.float32)

    def begin(self, jobs: Sequence[MouthJob]) -> FakeDrawing:
        if self.lost:
            raise DeviceLost(f"The fake device of {self.name} fell off the bus.")
        self.begun.append(list(jobs))
        return FakeDrawing(self, list(jobs))

    def finish(self, jobs: list[MouthJob]) -> list[FaceCrop | None]:
        if self.lost:
            raise DeviceLost(f"The fake device of {self.name} fell off the bus.")
        self.finished.append(jobs)
        return [None if np.isnan(job.features).any() else fake_crop(job.frame, NETWORK_LUMA) for job in jobs]

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop | None]:
        return self.begin(jobs).crops()


def prepared_avatar(count: int = 10) -> Avatar:
    """A fake avatar that was prepared for the network."""
    latent = LatentFace(np.zeros((8, 32, 32), np.float16), MOUTH, np.full((MOUTH.height, MOUTH.width), 255, np.uint8), MOUTH)
    plain = fake_avatar(count)
    return replace(plain, frames=[replace(frame, generated=latent) for frame in plain.frames])
