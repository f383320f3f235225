"""The feature row of the warp engine: what the mouth does in one frame, as eight numbers."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from gpuserver.domain import Floats


class Part(IntEnum):
    """The columns of a feature row (float32 [8]). Lengths are in units of the mouth's width at rest."""

    OPENING = 0  # gap between the inner lips, 0 closed … 0.5 wide open
    JAW = 1  # how far the chin drops, 0 … 0.35
    WIDTH = 2  # how far each corner moves outwards, -0.15 … 0.10
    ROUNDING = 3  # 0 … 1: lips protrude, the gap narrows to the middle
    LIFT = 4  # 0 … 1: share of the opening that the upper lip makes
    TEETH = 5  # 0 … 1: how much of the upper teeth the lips let through
    TONGUE = 6  # 0 … 1: how far the tongue is raised behind the teeth
    PRESS = 7  # 0 … 1: lips rolled in, as on p b m


PARTS = len(Part)


def rest_row() -> Floats:
    """The row of closed, relaxed lips."""
    return np.zeros(PARTS, np.float32)


def no_rows() -> Floats:
    return np.zeros((0, PARTS), np.float32)
