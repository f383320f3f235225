"""Brings mapped pictures into memory before they are needed, so that a session's first pictures do not wait for the disk."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Avatar


def make_resident(avatar: Avatar) -> int:
    """Read something of every page of the avatar once and give its size in bytes. Blocks while the disk is read.

    The kernel keeps the pages as long as there is room for them.
    """
    size = 0
    for frame in avatar.frames:
        generated = frame.generated
        for values in (frame.picture, frame.landmarks, *((generated.latent, generated.mask) if generated else ())):
            _touch(values)
            size += values.nbytes
    return size


def _touch(values: NDArray[Any]) -> None:
    flat = values.reshape(-1).view(np.uint8)
    flat[:: mmap.PAGESIZE].max(initial=0)
    flat[-1:].max(initial=0)
