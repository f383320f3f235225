"""The patch of picture on which the inside of a mouth is painted, coarser than the picture where the mouth is large."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import AvatarFrame, Box, Bytes2D, Floats
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry
from gpuserver.musetalk.warp.mouth_light import BLACK, Color, planes

FINEST = 90.0  # samples per mouth width: painted surfaces are smooth, finer ones look the same
_FROM_GRID = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, slots=True, eq=False)
class OwnTeeth:
    """What is shown of the source's own teeth, float32 [h, w] on the canvas. weight: 0..1; right, down: where from, in pixels."""

    weight: Floats
    right: Floats
    down: Floats


@dataclass(slots=True, eq=False)
class Canvas:
    """The samples around the moved lips. Fields are float32 [h, w]; lengths in pixels of the picture unless said."""

    box: Box  # of the picture
    step: int  # pixels between two samples
    unit: float  # pixels per mouth width
    x: Floats  # mouth widths from the middle of the lips
    y: Floats  # mouth widths, mouth coordinates
    place: Floats  # -1 left corner, 1 right corner
    depth: Floats  # below the upper lip's edge
    height: Floats  # above the lower lip's edge
    gap: Floats
    below_rest: Floats  # below the line where the lips would meet
    moved: Floats  # mouth widths: how far the upper lip's edge went down
    source_upper: Floats  # mouth widths, where that edge is in the source
    source_gap: Floats  # mouth widths
    luma: Floats
    blue: Floats
    red: Floats

    def lay(self, weight: Floats, color: Color, brightness: Floats | float = 1.0) -> None:
        """Blend a colour in; `brightness` scales it against black."""
        target = BLACK + (color.y - BLACK) * brightness
        self.luma += weight * (target - self.luma)
        self.blue += weight * (color.u - self.blue)
        self.red += weight * (color.v - self.red)


def canvas_around(mouth: MouthGeometry, fields: MouthFields) -> Canvas | None:
    """A blank canvas over the moved lips, inside the mouth's box; None where there is no place for one."""
    inside = np.flatnonzero(np.abs(fields.place) <= 1.05)
    if not len(inside):
        return None
    step = max(round(mouth.unit / FINEST), 1)
    top, bottom = float(fields.upper_inner[inside].min()) - 0.06, float(fields.lower_inner[inside].max()) + 0.06
    box = mouth.box_around(float(mouth.x[inside[0]]), top, float(mouth.x[inside[-1]]), bottom, multiple=2 * step)
    if box is None:
        return None
    x, y = mouth.places(box, step)
    to_grid, size = mouth.box_to_grid(box, step), (box.width // step, box.height // step)
    ui, li, rest, place = _sampled((fields.upper_inner, fields.lower_inner, fields.rest_line, fields.place), to_grid, size)
    source_upper, source_lower, *_ = _sampled((mouth.upper_inner, mouth.lower_inner) * 2, to_grid, size)
    unit = np.float32(mouth.unit)
    blank = np.zeros((3, *x.shape), np.float32)
    return Canvas(
        box, step, mouth.unit, x - np.float32(mouth.middle), y, place,
        depth=(y - ui) * unit, height=(li - y) * unit, gap=np.maximum(li - ui, 0) * unit, below_rest=(y - rest) * unit,
        moved=ui - source_upper, source_upper=source_upper, source_gap=np.maximum(source_lower - source_upper, 1e-3),
        luma=blank[0], blue=blank[1], red=blank[2],
    )  # fmt: skip


def _sampled(curves: tuple[Floats, ...], to_grid: NDArray[np.float64], size: tuple[int, int]) -> list[Floats]:
    """Four curves over the grid's columns, each float32 [h, w] on the canvas."""
    # One row of pixels is the same in all rows once its border is replicated.
    spread = cv2.warpAffine(np.stack(curves, -1)[None], to_grid, size, flags=_FROM_GRID, borderMode=cv2.BORDER_REPLICATE)
    return [np.asarray(curve, np.float32) for curve in cv2.split(spread)]


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """A finished canvas. alpha: 0..1, how much of it is seen."""

    canvas: Canvas
    alpha: Floats
    own_teeth: OwnTeeth | None

    def lay_over(self, crop: tuple[Bytes2D, Bytes2D, Bytes2D], crop_box: Box, source: AvatarFrame) -> None:
        """Blend into the three planes of a crop of the source's picture, in place."""
        canvas, box = self.canvas, self.canvas.box
        colors = (canvas.luma, canvas.blue, canvas.red)
        for plane, original, color, scale in zip(crop, planes(source), colors, (1, 2, 2), strict=True):
            size = (box.width // scale, box.height // scale)
            top, left = (box.top - crop_box.top) // scale, (box.left - crop_box.left) // scale
            part = plane[top : top + size[1], left : left + size[0]]
            shown = _resized(color, size)
            if self.own_teeth is not None:
                shown += _resized(self.own_teeth.weight, size) * (self._own(self.own_teeth, original, scale, size) - shown)
            under = part.astype(np.float32)
            part[...] = np.rint(np.clip(under + _resized(self.alpha, size) * (shown - under), 0, 255)).astype(np.uint8)

    def _own(self, teeth: OwnTeeth, plane: Bytes2D, scale: int, size: tuple[int, int]) -> Bytes2D:
        """The source's pixels that come into the box from where its own teeth are."""
        box = self.canvas.box
        x = _resized(teeth.right, size) / scale + np.arange(box.left // scale, box.right // scale, dtype=np.float32)
        y = _resized(teeth.down, size) / scale + np.arange(box.top // scale, box.bottom // scale, dtype=np.float32)[:, None]
        return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _resized(field: Floats, size: tuple[int, int]) -> Floats:
    smaller = size[0] < field.shape[1]
    return np.array(cv2.resize(field, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.float32)
