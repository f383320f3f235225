"""What is seen between the lips: a dark cavity in the face's own light, the tongue, two rows of teeth, or the source's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats
from gpuserver.musetalk.warp.mouth_canvas import Canvas, OwnTeeth, Paint, canvas_around
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry, smooth, smooth_step
from gpuserver.musetalk.warp.mouth_light import Color, FaceLight
from gpuserver.musetalk.warp.mouth_shape import Part

SMALL, LARGE = 30.0, 80.0  # mouth widths in pixels: below the first, teeth are only hinted at
TOOTH_EDGES = (0.0, 0.165, 0.295, 0.395)  # in mouth widths from the middle: incisors of 8.5 and 6.5 mm in a mouth of 50 mm
LATERAL = (0.225, 0.065, 0.020)  # middle, half width, and how much shorter than its neighbours the second incisor is
OWN_TEETH_FOLLOW = 0.6  # the source's own teeth go this share of the way with the upper lip, so that it hides them evenly


def paint_interior(mouth: MouthGeometry, light: FaceLight, fields: MouthFields, row: Floats) -> Paint | None:
    """The inside of the opened mouth, or None where nothing is to be painted.

    A closed mouth in the source that stays closed gets no paint at all.
    """
    parted = mouth.parted
    if row[Part.OPENING] * mouth.unit < 0.3 and parted == 0:
        return None
    canvas = canvas_around(mouth, fields)
    if canvas is None:
        return None
    soft = max(1.3, 0.022 * mouth.unit)
    alpha = np.clip(canvas.depth / soft + 0.5, 0, 1) * np.clip(canvas.height / soft + 0.5, 0, 1) * np.clip(canvas.gap / soft, 0, 1)
    rounding = float(row[Part.ROUNDING])
    _cavity(canvas, light)
    _lower_teeth(canvas, light, float(row[Part.TEETH]) * (1 - rounding))
    _tongue(canvas, light, float(row[Part.TONGUE]))
    _upper_teeth(canvas, light, float(row[Part.TEETH]) * (1 - 0.6 * rounding))
    own = None
    if parted > 0:
        line = _lip_line(canvas, light, alpha, parted, soft)
        own = _own_teeth(canvas, mouth, (1 - _shadow(rounding)) * (1 - line / np.maximum(alpha + line, 1e-3)))
        alpha = np.minimum(alpha + line, 1)
    return Paint(canvas, np.asarray(alpha, np.float32), own)


def _shadow(rounding: float) -> float:
    """How much of the source's own teeth lies in the dark behind rounded lips."""
    return smooth(0.1, 0.75, rounding)


def _bump(distance: NDArray[np.floating]) -> Floats:
    """A Gaussian bell; its far tail is cut before it becomes denormal numbers, which are slow."""
    return np.asarray(np.exp(-np.minimum(distance * distance, 40)), np.float32)


def _cavity(c: Canvas, light: FaceLight) -> None:
    """Dark behind the upper lip; warmer and a little brighter towards the lower one, where light falls in."""
    front = np.exp(-np.maximum(c.height, 0) / np.maximum(0.30 * c.gap, 1))
    c.lay(np.ones_like(c.luma), Color(light.skin.y, light.skin.scaled(0, 0.35).u, light.lips.scaled(0, 0.5).v), 0.06 + 0.12 * front)


def _tongue(c: Canvas, light: FaceLight, raised: float) -> None:
    """A mound on the floor of the mouth, rising with `raised`; its front is lit, its back is not."""
    top = (0.34 + 0.45 * raised) * c.gap * (1 - 0.6 * c.place**2)
    mound = smooth_step(-1, 1, (top - c.height) / np.maximum(0.20 * c.gap, 2.0)) * (1 - np.clip(np.abs(c.place), 0, 1) ** 3)
    back = smooth_step(-0.1, 0.8, c.height / np.maximum(c.gap, 1))
    weight = mound * (0.65 + 0.25 * raised) * smooth_step(0.03, 0.12, c.gap / c.unit)
    c.lay(weight, light.lips.scaled(0.70, 1.0), 1 - 0.55 * back)


def _upper_teeth(c: Canvas, light: FaceLight, shown: float) -> None:
    """The upper row belongs to the skull: it hangs a little below where the lips meet, and shows where the lips let it."""
    size = smooth(SMALL, LARGE, c.unit)
    edges = np.zeros_like(c.x)
    for edge in TOOTH_EDGES:
        edges += _bump((np.abs(c.x) - edge) / 0.013)
    shorter = LATERAL[2] * _bump((np.abs(c.x) - LATERAL[0]) / LATERAL[1]) + 0.010 * edges
    hang = ((0.038 + 0.045 * shown) * (1 - 0.45 * c.place**2) - size * shorter) * c.unit
    body: Floats = np.clip((hang - c.below_rest) / np.float32(max(1.6, 0.022 * c.unit)) + np.float32(0.5), 0, 1)
    weight = body * (1 - smooth_step(0.6, 0.95, np.abs(c.place))) * (0.75 + 0.22 * size) * smooth(0.0, 0.4, shown)
    in_shadow = 0.62 + 0.38 * smooth_step(0, 0.05 * c.unit, c.depth)  # of the lip above
    c.lay(weight, light.skin.scaled(1.0 + 0.17 * size, 0.62), in_shadow * (1 - 0.45 * c.place**2) * (1 - 0.11 * size * edges))


def _lower_teeth(c: Canvas, light: FaceLight, shown: float) -> None:
    """The lower row belongs to the jaw: its edges look over the lower lip of a wide mouth, in the shade of the upper ones."""
    large = smooth(SMALL, LARGE, c.unit)
    stand = 0.035 * (1 - 0.8 * c.place**2) * c.unit
    body = np.clip((stand - c.height) / max(1.6, 0.02 * c.unit) + 0.5, 0, 1) * (1 - smooth_step(0.45, 0.75, np.abs(c.place)))
    weight = 0.6 * large * shown * body * smooth_step(0.10, 0.20, c.gap / c.unit)
    c.lay(weight, light.skin.scaled(0.72, 0.5), 1 - 0.4 * c.place**2)


def _own_teeth(c: Canvas, mouth: MouthGeometry, shown: Floats) -> OwnTeeth:
    """Where the source shows its own teeth, they are shown."""
    shift = OWN_TEETH_FOLLOW * c.moved
    v = (c.y - shift - c.source_upper) / c.source_gap
    weight = shown * mouth.parted * smooth_step(0.0, 0.10, v) * (1 - smooth_step(0.55, 0.85, v)) * smooth_step(0.02, 0.06, c.source_gap)
    length = -shift * np.float32(c.unit)
    return OwnTeeth(np.asarray(weight, np.float32), length * np.float32(mouth.down[0]), length * np.float32(mouth.down[1]))


def _lip_line(c: Canvas, light: FaceLight, alpha: Floats, parted: float, soft: float) -> Floats:
    """Lips brought together have no line of their own: shade one. Gives its weight beside alpha."""
    closed = 1 - np.clip(c.gap / (2 * soft), 0, 1)
    line = 0.9 * parted * closed * _bump(c.depth / (0.8 * soft)) * np.sqrt(np.clip(1 - c.place**2, 0, 1))
    c.lay(line / np.maximum(alpha + line, 1e-3), light.lips.scaled(0.48, 1.0))
    return np.asarray(line, np.float32)
