"""The Renderer's policy with engines of known speed, in virtual time: Dispatch as it is, sleeping instead of drawing."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from fakes import fake_crop
from virtual_time import now

from gpuserver.domain import FaceCrop, MouthJob
from gpuserver.musetalk.rendering.dispatch import Desk, Dispatch, settle
from gpuserver.musetalk.rendering.ladder import Ladder, Step
from gpuserver.musetalk.rendering.render_stats import RendererStats
from gpuserver.musetalk.rendering.schedule import Pending

BRIGHTNESS = {Desk.DEVICE: 230, Desk.SPARE: 200}


class SimulatedRenderer:
    """Implements MouthPainter. device: frames per second of each of `devices`, which draw everything; spare: of the spare engine.

    seconds_to_finish: copying and pasting after the device is done with a batch. steps: (time, step) whenever the ladder changed.
    Use it as a context manager, inside the loop.
    """

    def __init__(self, *, spare: float, device: float = 0.0, devices: int = 0, max_batch: int = 8, seconds_to_finish: float = 0.0):
        self.steps: list[tuple[float, Step]] = []
        self._seconds_to_finish = seconds_to_finish
        self._speeds = {Desk.DEVICE: device, Desk.SPARE: spare}
        self._limits = {Desk.DEVICE: max_batch, Desk.SPARE: 1}
        self._dispatch = Dispatch(Ladder())
        self._devices = devices
        if devices:
            self._dispatch.add_devices(devices, lambda job: True)
        self._changed = {desk: asyncio.Event() for desk in Desk}
        self._workers: list[asyncio.Task[None]] = []
        self._finishing: set[asyncio.Task[None]] = set()

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        desk, future = self._dispatch.submit(job)
        self._changed[desk].set()
        return future

    @property
    def stats(self) -> RendererStats:
        return self._dispatch.stats(())

    @property
    def step(self) -> Step:
        return self._dispatch.step

    def lose_device(self) -> None:
        """One device is gone; what it was drawing is put back."""
        self._dispatch.lose_device()
        self._workers.pop(0).cancel()
        self._wake_all()

    async def __aenter__(self) -> SimulatedRenderer:
        desks = [Desk.DEVICE] * self._devices + [Desk.SPARE]
        self._workers = [asyncio.create_task(self._work(desk)) for desk in desks]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.wait([*self._workers, *self._finishing])

    async def _work(self, desk: Desk) -> None:
        while True:
            self._changed[desk].clear()
            batch = self._dispatch.take(desk, self._limits[desk], now())
            if not batch:
                try:
                    async with asyncio.timeout(self._dispatch.seconds_to_next(desk, now())):
                        await self._changed[desk].wait()
                except TimeoutError:
                    pass
                continue
            try:
                await asyncio.sleep(len(batch) / self._speeds[desk])
            except asyncio.CancelledError:
                self._dispatch.put_back(batch)
                self._wake_all()
                raise
            finishing = asyncio.create_task(self._finish(desk, batch))
            self._finishing.add(finishing)
            finishing.add_done_callback(self._finishing.discard)

    async def _finish(self, desk: Desk, batch: list[Pending]) -> None:
        await asyncio.sleep(self._seconds_to_finish)
        crops = [fake_crop(pending.job.frame, BRIGHTNESS[desk]) for pending in batch]
        if self._dispatch.hand_in(batch, crops, now()):
            self.steps.append((now(), self._dispatch.step))
            self._wake_all()
        settle(batch, crops, desk.value)

    def _wake_all(self) -> None:
        for changed in self._changed.values():
            changed.set()
