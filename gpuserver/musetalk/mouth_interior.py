"""What is seen between the lips: a dark cavity in the face's own light, the tongue, a row of upper teeth, or the source's own."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import AvatarFrame, Box, Bytes2D, Floats
from gpuserver.musetalk.mouth_fields import MouthFields
from gpuserver.musetalk.mouth_geometry import MouthGeometry, smooth_step
from gpuserver.musetalk.mouth_light import Color, FaceLight, planes
from gpuserver.musetalk.mouth_shape import Part

SMALL, LARGE = 30.0, 80.0  # mouth widths in pixels: below the first, teeth are only hinted at
TOOTH_EDGES = (0.0, 0.165, 0.295, 0.395)  # in mouth widths from the middle: incisors of 8.5 and 6.5 mm in a mouth of 50 mm
ROUNDED_HIDES = 0.65  # of the source's own teeth lie in the shadow of rounded lips
OWN_TEETH_FOLLOW = 0.6  # the source's own teeth go this share of the way with the upper lip, so that it hides them evenly


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """Colour to lay over a crop: `box` in the crop's own pixels, alpha 0..1 and luma at full, chroma at half resolution."""

    box: Box
    alpha: Floats
    y: Floats
    u: Floats
    v: Floats

    def lay_over(self, y: Bytes2D, u: Bytes2D, v: Bytes2D) -> None:
        """Blend into the three planes of the crop, in place."""
        b = self.box
        half = cv2.resize(self.alpha, (b.width // 2, b.height // 2), interpolation=cv2.INTER_AREA)
        for plane, color, alpha, scale in ((y, self.y, self.alpha, 1), (u, self.u, half, 2), (v, self.v, half, 2)):
            part = plane[b.top // scale : b.bottom // scale, b.left // scale : b.right // scale]
            under = part.astype(np.float32)
            part[...] = np.rint(under + alpha * (color - under)).astype(np.uint8)


@dataclass(slots=True, eq=False)
class _Canvas:
    """The pixels around the moved lips. Fields are float32 [h, w]; lengths in pixels unless said."""

    box: Box
    unit: float  # pixels per mouth width
    column: Floats  # of the mouth's grid, fractional
    x: Floats  # mouth widths from the middle of the lips
    y: Floats  # mouth widths, mouth coordinates
    place: Floats  # -1 left corner, 1 right corner
    depth: Floats  # below the upper lip's edge
    height: Floats  # above the lower lip's edge
    gap: Floats
    below_rest: Floats  # below the line where the lips would meet
    luma: Floats
    blue: Floats
    red: Floats

    def lay(self, weight: Floats, color: Color, brightness: Floats | float = 1.0) -> None:
        """Blend a colour in; `brightness` scales it against black."""
        target = 16 + (color.y - 16) * brightness
        self.luma += weight * (target - self.luma)
        self.blue += weight * (color.u - self.blue)
        self.red += weight * (color.v - self.red)


def paint_interior(frame: AvatarFrame, mouth: MouthGeometry, light: FaceLight, fields: MouthFields, row: Floats) -> Paint | None:
    """The inside of the opened mouth, or None where nothing is to be painted.

    A closed mouth in the source that stays closed gets no paint at all.
    """
    parted = mouth.parted
    if row[Part.OPENING] * mouth.unit < 0.3 and parted == 0:
        return None
    canvas = _canvas(mouth, fields)
    if canvas is None:
        return None
    soft = max(1.3, 0.022 * mouth.unit)
    alpha = np.clip(canvas.depth / soft + 0.5, 0, 1) * np.clip(canvas.height / soft + 0.5, 0, 1) * np.clip(canvas.gap / soft, 0, 1)
    _cavity(canvas, light)
    _tongue(canvas, light, float(row[Part.TONGUE]))
    _teeth(canvas, light, float(row[Part.TEETH]))
    if parted > 0:
        _own_teeth(canvas, frame, mouth, fields, 1 - ROUNDED_HIDES * float(row[Part.ROUNDING]))
        alpha = _lip_line(canvas, light, alpha, parted, soft)
    box, half = canvas.box, (canvas.box.width // 2, canvas.box.height // 2)
    crop = Box(box.left - mouth.box.left, box.top - mouth.box.top, box.right - mouth.box.left, box.bottom - mouth.box.top)
    blue, red = (np.asarray(cv2.resize(plane, half, interpolation=cv2.INTER_AREA), np.float32) for plane in (canvas.blue, canvas.red))
    return Paint(crop, np.asarray(alpha, np.float32), canvas.luma, blue, red)


def _canvas(mouth: MouthGeometry, fields: MouthFields) -> _Canvas | None:
    """The pixels of an even box around the moved lips, inside the crop by two pixels; None if there are none."""
    inside = np.flatnonzero(np.abs(fields.place) <= 1.05)
    if not len(inside):
        return None
    left, right = mouth.x[inside[0]], mouth.x[inside[-1]]
    top, bottom = fields.upper_inner[inside].min() - 0.06, fields.lower_inner[inside].max() + 0.06
    corners = mouth.to_picture(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32))
    low = np.maximum(np.floor(corners.min(0) / 2).astype(int) * 2, [mouth.box.left + 2, mouth.box.top + 2])
    high = np.minimum(np.ceil(corners.max(0) / 2).astype(int) * 2, [mouth.box.right - 2, mouth.box.bottom - 2])
    if (high - low < 2).any():
        return None
    box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    x, y = mouth.places(box)
    column = (x - mouth.x[0]) / (mouth.x[1] - mouth.x[0])
    ui, li, rest, place = (sample(c, column) for c in (fields.upper_inner, fields.lower_inner, fields.rest_line, fields.place))
    unit = np.float32(mouth.unit)
    blank = np.zeros((3, *x.shape), np.float32)
    return _Canvas(
        box, mouth.unit, column, x - np.float32(mouth.middle), y, place,
        depth=(y - ui) * unit, height=(li - y) * unit, gap=np.maximum(li - ui, 0) * unit, below_rest=(y - rest) * unit,
        luma=blank[0], blue=blank[1], red=blank[2],
    )  # fmt: skip


def sample(curve: Floats, column: Floats) -> Floats:
    """A curve over the grid's columns, at fractional columns."""
    return np.asarray(np.interp(column.ravel(), np.arange(len(curve)), curve).reshape(column.shape), np.float32)


def _bump(distance: NDArray[np.floating]) -> Floats:
    """A Gaussian bell; its far tail is cut before it becomes denormal numbers, which are slow."""
    return np.asarray(np.exp(-np.minimum(distance * distance, 40)), np.float32)


def _cavity(c: _Canvas, light: FaceLight) -> None:
    """Dark behind the upper lip; warmer and a little brighter towards the lower one, where light falls in."""
    front = np.exp(-np.maximum(c.height, 0) / np.maximum(0.30 * c.gap, 1))
    c.lay(np.ones_like(c.luma), Color(light.skin.y, light.skin.scaled(0, 0.35).u, light.lips.scaled(0, 0.5).v), 0.05 + 0.11 * front)


def _tongue(c: _Canvas, light: FaceLight, raised: float) -> None:
    """A mound on the floor of the mouth, rising with `raised`."""
    top = (0.30 + 0.45 * raised) * c.gap * (1 - 0.7 * c.place**2)
    mound = smooth_step(-1, 1, (top - c.height) / np.maximum(0.25 * c.gap, 2.0)) * (1 - np.clip(np.abs(c.place), 0, 1) ** 3)
    depth = smooth_step(-0.1, 0.7, c.height / np.maximum(c.gap, 1))  # its front is lit, its back is not
    weight = mound * (0.45 + 0.40 * raised) * smooth_step(0.03, 0.12, c.gap / c.unit)
    c.lay(weight, light.lips.scaled(0.62, 0.95), 1 - 0.6 * depth)


def _teeth(c: _Canvas, light: FaceLight, shown: float) -> None:
    """The upper row belongs to the skull: it hangs a little below where the lips meet, and shows where the lips let it."""
    size = float(smooth_step(SMALL, LARGE, c.unit))
    hang = (0.035 + 0.05 * shown) * (1 - 0.5 * c.place**2) * c.unit
    body = np.clip((hang - c.below_rest) / max(1.6, 0.03 * c.unit) + 0.5, 0, 1)
    sides = 1 - smooth_step(0.55, 0.95, np.abs(c.place))
    weight = body * sides * (0.55 + 0.40 * size) * (0.25 + 0.75 * shown)
    gaps = np.zeros_like(c.x)
    for edge in TOOTH_EDGES:
        gaps += _bump((np.abs(c.x) - edge) / 0.011)
    shade = (0.68 + 0.32 * smooth_step(0, 0.06 * c.unit, c.depth)) * (1 - 0.40 * c.place**2) * (1 - 0.09 * size * gaps)
    c.lay(weight, light.skin.scaled(0.96 + 0.20 * size, 0.6), shade)


def _own_teeth(c: _Canvas, frame: AvatarFrame, mouth: MouthGeometry, fields: MouthFields, shown: float) -> None:
    """Where the source shows its own teeth, they are shown."""
    upper, lower = sample(mouth.upper_inner, c.column), sample(mouth.lower_inner, c.column)
    shift = OWN_TEETH_FOLLOW * (sample(fields.upper_inner, c.column) - upper)
    gap = np.maximum(lower - upper, 1e-3)
    v = (c.y - shift - upper) / gap
    weight = shown * mouth.parted * smooth_step(0.0, 0.10, v) * (1 - smooth_step(0.55, 0.85, v)) * smooth_step(0.02, 0.06, gap)
    map_x = np.arange(c.box.left, c.box.right, dtype=np.float32) - shift * (c.unit * mouth.down[0])
    map_y = np.arange(c.box.top, c.box.bottom, dtype=np.float32)[:, None] - shift * (c.unit * mouth.down[1])
    chroma_x, chroma_y = map_x / 2 - 0.25, map_y / 2 - 0.25  # a chroma sample lies in the middle of 2 x 2 luma samples
    luma, blue, red = planes(frame)
    c.luma += weight * (_seen(luma, map_x, map_y) - c.luma)
    c.blue += weight * (_seen(blue, chroma_x, chroma_y) - c.blue)
    c.red += weight * (_seen(red, chroma_x, chroma_y) - c.red)


def _seen(plane: Bytes2D, x: Floats, y: Floats) -> Bytes2D:
    return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _lip_line(c: _Canvas, light: FaceLight, alpha: Floats, parted: float, soft: float) -> Floats:
    """Lips brought together have no line of their own: shade one. Gives the alpha with it."""
    closed = 1 - np.clip(c.gap / (2 * soft), 0, 1)
    line = 0.6 * parted * closed * _bump(c.depth / (0.8 * soft)) * np.sqrt(np.clip(1 - c.place**2, 0, 1))
    c.lay(line / np.maximum(alpha + line, 1e-3), light.lips.scaled(0.48, 1.0))
    return np.asarray(np.minimum(alpha + line, 1), np.float32)
