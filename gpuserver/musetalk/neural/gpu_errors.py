"""What can go wrong on a GPU, in two kinds: it has too little memory, which a smaller batch cures, or it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpuserver.errors import DeviceLost

_NO_ENGINE = "unable to find an engine"  # torch, when all of cuDNN's ways to convolve fail, as they do without room for a workspace
_MEMORY = ("out of memory", "ALLOC_FAILED", _NO_ENGINE)  # the others as CUDA and cuBLAS put it
_DEVICE = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]", "CUDNN_STATUS", "CUBLAS_STATUS", "NVRTC", "device-side assert")
_LONGEST = 300  # characters


@contextmanager
def translated() -> Iterator[None]:
    """CUDA's errors in the block become torch.OutOfMemoryError or DeviceLost; all others pass."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text for sign in (*_DEVICE, _NO_ENGINE)):
            raise
        if any(sign in text for sign in _MEMORY):
            raise torch.OutOfMemoryError(text) from error
        raise DeviceLost(f"The GPU failed: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, without the pages of advice that CUDA's and compilers' errors bring."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:_LONGEST]
