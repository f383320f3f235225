"""The memory that a renderer process shares with one worker: numbered slots for faces and for sounds.

It is an anonymous file (memfd): it has no name, and the kernel frees it when the last of the two processes lets go of it,
however that ends. It is sealed, so that neither can shrink it under the other's feet.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpuserver.domain import Floats
from gpuserver.musetalk.neural.whisper_features import LAYERS, MEL_FRAMES, MELS, SEGMENT_STEPS, TOKENS

LATENT = (8, 32, 32)
PICTURE = (256, 256, 3)  # BGR
MEL = (MELS, MEL_FRAMES)


@dataclass(frozen=True, slots=True)
class Layout:
    """width: of a row. paint_slots: 197 kB + 16 kB + 77 kB at width 384. hear_slots: 1 MB + up to 11.5 MB, for 30 s of sound.

    Pages that were never written take no memory.
    """

    width: int
    paint_slots: int
    hear_slots: int


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Views of the memory; the first index is the slot. It is unmapped when the last of them is gone.

    stale: uint8 [n], 1 where the worker wants the face no more. latents: float16 [n, 8, 32, 32]. rows: float32 [n, 50, width].
    pictures: uint8 [n, 256, 256, 3]. mels: float32 [m, 80, 3000]. states: float32 [m, 1500, 5, width].
    """

    stale: NDArray[np.uint8]
    latents: NDArray[np.float16]
    rows: Floats
    pictures: NDArray[np.uint8]
    mels: Floats
    states: Floats


def create_slots(layout: Layout) -> tuple[Slots, int]:
    """New memory, and its file descriptor, which is the caller's to send and to close."""
    descriptor = os.memfd_create("gpuserver-faces", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, _size(layout))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return map_slots(layout, descriptor), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def map_slots(layout: Layout, descriptor: int) -> Slots:
    """The memory behind a file descriptor, which may be closed then. Raises ValueError or OSError where it is not of this layout."""
    memory = mmap.mmap(descriptor, _size(layout))
    views: list[NDArray[np.generic]] = []
    begin = 0
    for dtype, shape in _arrays(layout):
        size = int(np.prod(shape))
        views.append(np.frombuffer(memory, dtype, size, begin).reshape(shape))
        begin += _pages(size * np.dtype(dtype).itemsize)
    return Slots(*views)  # type: ignore[arg-type]


def _arrays(layout: Layout) -> list[tuple[DTypeLike, tuple[int, ...]]]:
    """In the order of the fields of Slots."""
    n, m = layout.paint_slots, layout.hear_slots
    return [
        (np.uint8, (n,)),
        (np.float16, (n, *LATENT)),
        (np.float32, (n, TOKENS, layout.width)),
        (np.uint8, (n, *PICTURE)),
        (np.float32, (m, *MEL)),
        (np.float32, (m, SEGMENT_STEPS, LAYERS, layout.width)),
    ]


def _size(layout: Layout) -> int:
    return sum(_pages(int(np.prod(shape)) * np.dtype(dtype).itemsize) for dtype, shape in _arrays(layout))


def _pages(size: int) -> int:
    """Rounded up to whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
