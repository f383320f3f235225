"""The launches of one batch size: recorded once as a CUDA graph and replayed as one. Where that is refused, they are made one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpuserver.musetalk.neural.gpu_errors import first_line

Paint = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # latents, rows -> pictures, usable, as FaceNetwork does

_REHEARSALS = 3  # before a recording: libraries choose their kernels in the first runs, and Triton compiles its own


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """launch() reads the first two tensors and writes the last two, on the current stream. refusal: why it is no graph, or empty."""

    launch: Callable[[], None]
    latents: Tensor  # float16 [batch, 8, 32, 32]
    rows: Tensor  # float32 [batch, 50, width]
    pictures: Tensor  # uint8 [batch, 256, 256, 3]
    usable: Tensor  # bool [batch]
    refusal: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Recorder:
    """Makes recordings that run one after the other on one stream and therefore share memory.

    The networks of a recording must not be called with other tensors while it is recorded. pool: torch.cuda.graph_pool_handle().
    """

    stream: torch.cuda.Stream
    pool: Any  # has no public type
    row_shape: tuple[int, int]

    def record(self, paint: Paint, batch: int) -> Recording:
        """The rehearsals need as much memory as the recording, so the latter, which cannot fail in the middle, has enough.

        Raises torch.OutOfMemoryError, and RuntimeError for whatever fails on the device.
        """
        device = self.stream.device
        latents = torch.zeros(batch, 8, 32, 32, device=device, dtype=torch.float16)
        rows = torch.zeros(batch, *self.row_shape, device=device)
        torch.cuda.synchronize(device)
        with torch.cuda.stream(self.stream):  # so that the caller's stream is the current one again, however this ends
            for _ in range(_REHEARSALS):
                rehearsed = paint(latents, rows)
            torch.cuda.synchronize(device)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                    pictures, usable = paint(latents, rows)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                torch.cuda.synchronize(device)  # raises if it is the device that failed, not the recording
                return _one_by_one(paint, latents, rows, rehearsed, first_line(error))
        return Recording(graph.replay, latents, rows, pictures, usable)


def _one_by_one(paint: Paint, latents: Tensor, rows: Tensor, results: tuple[Tensor, Tensor], refusal: str) -> Recording:
    def launch() -> None:
        for result, target in zip(paint(latents, rows), results, strict=True):
            target.copy_(result)

    return Recording(launch, latents, rows, *results, refusal)
