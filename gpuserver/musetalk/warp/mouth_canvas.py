"""The samples of the picture on which the insides of mouths are painted, coarser than the picture where a mouth is large.

What depends on the place along the lips alone is worked out once per place, on curves, and spread over the samples where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Floats
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import COLUMNS, MouthGeometry, Reals
from gpuserver.musetalk.warp.mouth_light import BLACK, Color
from gpuserver.musetalk.warp.mouth_row import Extent, MouthRow, lips_extents

FINEST = 90.0  # samples per mouth width: painted surfaces are smooth, finer ones look the same
CURVE_POINTS = 16  # per column of the grid, a quarter of a sample apart where samples are finest: the nearest one is near enough
BESIDE = 2  # columns of the grid beside the lips that a tilted patch reaches
MARGIN = 0.06  # mouth widths above and below the lips


@dataclass(frozen=True, slots=True)
class Patch:
    """Where one mouth is painted. samples: of the canvas, row by row. shape: how many rows and columns."""

    mouth: int
    box: Box  # of the picture
    samples: slice
    shape: tuple[int, int]


@dataclass(slots=True, eq=False)
class Canvas:
    """The samples around the moved lips of n mouths, one patch after the other, float32 [samples].

    Curves from corner to corner are float32 [n, points]. Lengths are in mouth widths.
    """

    patches: Sequence[Patch]
    nearest: NDArray[np.intp]  # point of all curves to each sample
    owner: NDArray[np.intp]  # the mouth of each sample
    # curves
    x: Floats  # from the middle of the lips
    place: Floats  # -1 left corner, 1 right corner
    gap: Floats
    moved: Floats  # how far the upper lip's edge went down
    source_upper: Floats  # where that edge is in the source
    source_gap: Floats
    # samples
    y: Floats
    depth: Floats  # below the upper lip's edge
    height: Floats  # above the lower lip's edge
    below_rest: Floats  # below the line where the lips would meet
    luma: Floats
    chroma: Floats  # [2, samples]

    def spread(self, *curves: Reals) -> Floats:
        """The curves' values at the samples: float32 [curves, samples]."""
        return _taken(curves, self.nearest)

    def each(self, *numbers: Reals) -> Floats:
        """Every mouth's own number, [n, 1], at its samples: float32 [numbers, samples]."""
        return _taken(numbers, self.owner)

    def fill(self, color: Color, brightness: Reals) -> None:
        """Paint everything; `brightness` scales the colour against black."""
        light, self.chroma[0], self.chroma[1] = self.each(color.y - BLACK, color.u, color.v)
        self.luma[...] = light * brightness + BLACK

    def lay(self, weight: Reals, color: Color, brightness: Reals | float = 1.0) -> None:
        """Blend a colour in."""
        target = self.each(color.y - BLACK, color.u, color.v)
        self.luma += weight * (target[0] * brightness + BLACK - self.luma)
        self.chroma += weight * (target[1:] - self.chroma)


def make_canvas(geometries: Sequence[MouthGeometry], mouths: MouthRow, fields: MouthFields, wanted: Sequence[bool]) -> Canvas | None:
    """A canvas over the moved lips of the mouths that are wanted, not painted yet; None where there is no place for one."""
    extents = lips_extents(mouths, fields.place, fields.upper_inner, fields.lower_inner, reach=1.05)
    patches: list[Patch] = []
    places: list[Floats] = []
    count = 0
    for number, (mouth, extent) in enumerate(zip(geometries, extents, strict=True)):
        step = max(round(mouth.unit / FINEST), 1)
        box = None if extent is None or not wanted[number] else mouth.box_around(*extent.grown(MARGIN), multiple=2 * step)
        if box is not None:
            shape = (box.height // step, box.width // step)
            size = shape[0] * shape[1]
            patches.append(Patch(number, box, slice(count, count + size), shape))
            places.append(np.array(mouth.places(box, step)).reshape(2, size))
            count += size
    if not patches:
        return None
    owner = np.repeat([patch.mouth for patch in patches], [place.shape[1] for place in places])
    x, y = np.concatenate(places, axis=1)
    begin, curves = _curves(mouths, fields, extents)
    points = curves.shape[2]
    spacing = mouths.x[:, 1:2] - mouths.x[:, :1]
    beginning, per_x = _taken((begin - spacing / 2, CURVE_POINTS / spacing), owner)
    position = ((x - beginning) * per_x - 0.5).clip(0, points - 1)
    along, place, upper, lower, rest, source_upper, source_lower = curves
    upper_edge, lower_edge, rest_edge = _between((upper, lower, rest), position, owner * points)
    nearest = (position + 0.5).astype(np.intp) + owner * points
    return Canvas(
        patches, nearest, owner,
        x=along - mouths.middle, place=place, gap=(lower - upper).clip(0), moved=upper - source_upper,
        source_upper=source_upper, source_gap=(source_lower - source_upper).clip(1e-3),
        y=y, depth=y - upper_edge, height=lower_edge - y, below_rest=y - rest_edge,
        luma=np.empty(count, np.float32), chroma=np.empty((2, count), np.float32),
    )  # fmt: skip


def _curves(mouths: MouthRow, fields: MouthFields, extents: Sequence[Extent | None]) -> tuple[Floats, Floats]:
    """Where the curves begin, x [n, 1], and the curves, float32 [7, n, points]: x itself, place, then heights of edges."""
    first = np.array([0 if extent is None else max(extent.first - BESIDE, 0) for extent in extents])[:, None]
    widest = max(extent.last - extent.first for extent in extents if extent is not None) + 1 + 2 * BESIDE
    columns = (first + np.arange(widest)).clip(0, COLUMNS - 1) + np.arange(0, len(first) * COLUMNS, COLUMNS)[:, None]
    rough = _taken(
        (mouths.x, fields.place, fields.upper_inner, fields.lower_inner, fields.rest_line, mouths.upper_inner, mouths.lower_inner), columns
    )
    fine = cv2.resize(rough.reshape(-1, widest), None, fx=CURVE_POINTS, fy=1)
    return rough[0, :, :1], np.asarray(fine, np.float32).reshape(*rough.shape[:2], -1)


def _between(curves: Sequence[Reals], position: Floats, begin: NDArray[np.intp]) -> Floats:
    """The curves' values between two of their points: edges are sharp, so the nearest point is not near enough."""
    left = position.astype(np.intp).clip(0, curves[0].shape[1] - 2)
    before, after = _taken(curves, begin + left), _taken(curves, begin + left + 1)
    return np.asarray(before + (after - before) * (position - left).astype(np.float32), np.float32)


def _taken(values: Sequence[Reals], index: NDArray[np.intp]) -> Floats:
    """float32 [values, ...]: what is at each index of several arrays of one shape, flattened."""
    return np.array(values, np.float32).reshape(len(values), -1).take(index, axis=1, mode="clip")
