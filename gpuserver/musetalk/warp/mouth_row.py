"""The mouths of several pictures side by side, so that one operation on arrays serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from gpuserver.domain import Floats
from gpuserver.musetalk.warp.mouth_geometry import COLUMNS, MouthGeometry, Reals


@dataclass(frozen=True, slots=True, eq=False)
class MouthRow:
    """n mouths, as in MouthGeometry: numbers are float32 [n, 1], curves float32 [n, COLUMNS], `y` float32 [n, ROWS]."""

    unit: Floats
    x: Floats
    y: Floats
    middle: Floats
    left: Floats
    right: Floats
    nose: Floats
    upper_outer: Floats
    upper_inner: Floats
    lower_inner: Floats
    lower_outer: Floats
    jaw: Floats
    pull: Floats
    pull_limit: Floats
    hold: Floats
    neutral: Floats
    opening: Floats
    parted: Floats


def side_by_side(mouths: Sequence[MouthGeometry]) -> MouthRow:
    """One row of mouths."""
    return MouthRow(*(_stacked([getattr(mouth, field.name) for mouth in mouths]) for field in fields(MouthRow)))


def _stacked(values: Sequence[Floats | float]) -> Floats:
    stacked = np.array(values, np.float32)
    return stacked[:, None] if stacked.ndim == 1 else stacked


@dataclass(frozen=True, slots=True)
class Extent:
    """A rectangle in mouth coordinates, and the columns of the grid at its sides."""

    left: float
    top: float
    right: float
    bottom: float
    first: int
    last: int

    def grown(self, by: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, reaching further up and down."""
        return self.left, self.top - by, self.right, self.bottom + by


def lips_extents(mouths: MouthRow, place: Floats, upper: Reals, lower: Reals, reach: float) -> list[Extent | None]:
    """Per mouth the rectangle around two curves where `place` is at most `reach` from the middle; None where it nowhere is."""
    inside = np.abs(place) <= reach
    first, last = inside.argmax(1), COLUMNS - 1 - inside[:, ::-1].argmax(1)
    row = np.arange(len(place))
    top, bottom = np.where(inside, upper, np.inf).min(1), np.where(inside, lower, -np.inf).max(1)
    sides = (mouths.x[row, first], top, mouths.x[row, last], bottom, first, last)
    numbers = zip(*(side.tolist() for side in sides), strict=True)
    return [Extent(*each) if there else None for there, each in zip(inside.max(1).tolist(), numbers, strict=True)]
