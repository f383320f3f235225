"""Paints on a GPU: the networks are recorded once per batch size and replayed as one launch each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch

from gpuserver.musetalk.neural.face_boxes import FACE_SIDE
from gpuserver.musetalk.neural.face_painter import FaceNetwork, Faces, Order
from gpuserver.musetalk.neural.gpu_errors import translated
from gpuserver.musetalk.neural.recording import Paint, Recorder, Recording
from gpuserver.musetalk.neural.tuning import Trial, Tuning

BUCKETS = (1, 2, 4, 8, 16, 32)  # faces; a batch is filled up to the next one


class _Tray:
    """Page-locked memory of one batch, for copies that the processor does not wait for, and the event after the last one."""

    def __init__(self, size: int, network: FaceNetwork):
        self.latents = torch.zeros(size, 8, 32, 32, dtype=torch.float16, pin_memory=True)
        self.rows = torch.zeros(size, *network.row_shape, pin_memory=True)
        self.pictures = torch.zeros(size, FACE_SIDE, FACE_SIDE, 3, dtype=torch.uint8, pin_memory=True)
        self.usable = torch.zeros(size, dtype=torch.bool, pin_memory=True)
        self.painted = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def lay_in(self, orders: Sequence[Order]) -> None:
        for index, order in enumerate(orders):
            self.latents[index].numpy()[...] = order.latent
            self.rows[index].numpy()[...] = order.row

    def faces(self, count: int) -> Faces:
        """Waits for the device. The tray may be used again afterwards."""
        with translated():
            self.painted.synchronize()
        return Faces(self.pictures[:count].numpy().copy(), self.usable[:count].numpy().copy())


class GraphPainter:
    """Implements Painter. One stream, so that batches follow one another; as many trays as there are batches on their way.

    Nothing is allocated after warm_up(), which has to be called first; buckets for which there is too little memory are left out then.
    buckets: batch sizes, such as BUCKETS. compiled: let torch.compile fuse what it can, which needs a C compiler and about a minute
    for each bucket. tuning: what else to try with the largest bucket; None: the network is run as it is.
    """

    def __init__(self, network: FaceNetwork, buckets: Sequence[int], *, compiled: bool = False, tuning: Tuning | None = None):
        self._network = network
        self._paint: Paint = torch.compile(network, dynamic=False) if compiled else network
        self._buckets = sorted(buckets)
        self._tuning = tuning
        self._stream = torch.cuda.Stream(network.device)  # type: ignore[no-untyped-call]
        self._recorder = Recorder(self._stream, torch.cuda.graph_pool_handle(), network.row_shape)
        self._recordings: dict[int, Recording] = {}
        self._trays: list[_Tray] = []  # free ones
        self._launching = threading.Lock()
        self._trials: list[Trial] = []

    @property
    def max_batch(self) -> int:
        return self._buckets[-1]

    @property
    def remarks(self) -> list[str]:
        """What warm_up() tried and what it found wrong."""
        refused = [f"batch {size}: launched one by one, {each.refusal}" for size, each in self._recordings.items() if each.refusal]
        return [*map(str, self._trials), *refused]

    def warm_up(self) -> None:
        """Record every bucket, the largest first, which also decides how all are drawn.

        Raises torch.OutOfMemoryError where there is no memory even for the smallest, and DeviceLost.
        """
        device = self._network.device
        tuning = torch.backends.cudnn.flags(enabled=True, benchmark=True)
        with self._launching, translated(), torch.inference_mode(), torch.cuda.device(device), tuning:
            for bucket in reversed(self._buckets.copy()):
                if bucket not in self._recordings and not self._recorded(bucket):
                    self._buckets.remove(bucket)
                elif self._tuning is not None and not self._trials:
                    self._tune(self._tuning, bucket)
            self._trays = [_Tray(self.max_batch, self._network) for _ in range(2)]
            torch.cuda.empty_cache()  # of rehearsals; recordings have their own

    def begin(self, orders: Sequence[Order]) -> Callable[[], Faces]:
        bucket = next(bucket for bucket in self._buckets if bucket >= len(orders))
        with self._launching, translated(), torch.inference_mode(), torch.cuda.stream(self._stream):
            tray = self._trays.pop() if self._trays else _Tray(self.max_batch, self._network)
            tray.lay_in(orders)
            recording = self._recordings[bucket]
            recording.latents.copy_(tray.latents[:bucket], non_blocking=True)
            recording.rows.copy_(tray.rows[:bucket], non_blocking=True)
            recording.launch()
            tray.pictures[:bucket].copy_(recording.pictures, non_blocking=True)
            tray.usable[:bucket].copy_(recording.usable, non_blocking=True)
            tray.painted.record(self._stream)
        return partial(self._finish, tray, len(orders))

    def _finish(self, tray: _Tray, count: int) -> Faces:
        faces = tray.faces(count)
        with self._launching:
            self._trays.append(tray)
        return faces

    def _recorded(self, bucket: int) -> bool:
        """Whether there was memory for the bucket. Raises torch.OutOfMemoryError for the smallest one, and DeviceLost."""
        try:
            with translated():
                self._recordings[bucket] = self._recorder.record(self._paint, bucket)
        except torch.OutOfMemoryError:
            if bucket == self._buckets[0]:
                raise
            return False
        return True

    def _tune(self, tuning: Tuning, bucket: int) -> None:
        with torch.cuda.stream(self._stream):
            self._recordings[bucket], self._trials = tuning.choose(
                self._recordings[bucket], self._network.fuse, partial(self._recorder.record, self._paint, bucket)
            )
        self._network.forget()
