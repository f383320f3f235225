"""What can go wrong on a GPU, in two kinds: it has too little memory, which a smaller batch cures, or it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpuserver.errors import DeviceLost

_MEMORY = ("out of memory", "ALLOC_FAILED")  # as CUDA and cuBLAS put it
_DEVICE = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "CUBLAS_STATUS", "NVRTC", "device-side assert")


@contextmanager
def translated() -> Iterator[None]:
    """CUDA's errors in the block become torch.OutOfMemoryError or DeviceLost; all others pass."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text for sign in _DEVICE):
            raise
        if any(sign in text for sign in _MEMORY):
            raise torch.OutOfMemoryError(text) from error
        raise DeviceLost(f"The GPU failed: {text.splitlines()[0]}") from error
