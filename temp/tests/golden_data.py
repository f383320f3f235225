"""The arrays that MuseTalk's own code computed, and networks that hold the same weights by formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden_array(file: str, name: str) -> Tensor:
    """One array of a file of temp/tests/golden, such as golden_array("pipeline_tiny.npz", "latents_mode")."""
    with np.load(GOLDEN / file) as arrays:
        return torch.from_numpy(arrays[name])


def sound_of_frames() -> Tensor:
    """What the UNet hears in the pictures that pipeline_tiny.npz generates: [3, 50, 64]."""
    chosen = golden_array("pipeline_tiny.npz", "chunk_sel").tolist()
    rows = [chosen.index(frame) for frame in golden_array("pipeline_tiny.npz", "gen_frames").tolist()]
    return golden_array("pipeline_tiny.npz", "chunks_pe")[rows]


def latents_of_frames() -> Tensor:
    """The face that is drawn in all of them: [3, 8, 32, 32]."""
    return golden_array("pipeline_tiny.npz", "latents_mode").repeat(3, 1, 1, 1)
