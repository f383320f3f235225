"""What is seen between the lips: a dark cavity in the face's own light, the tongue, two rows of teeth, or the source's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuserver.domain import Floats
from gpuserver.musetalk.warp.mouth_canvas import Canvas, make_canvas
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry, Reals, ramp, smooth_step
from gpuserver.musetalk.warp.mouth_light import Color, FaceLight
from gpuserver.musetalk.warp.mouth_paint import OwnTeeth, Paint
from gpuserver.musetalk.warp.mouth_row import MouthRow
from gpuserver.musetalk.warp.mouth_shape import Part

SMALL, LARGE = 30.0, 80.0  # mouth widths in pixels: below the first, teeth are only hinted at
TOOTH_EDGES = (0.0, 0.165, 0.295, 0.395)  # in mouth widths from the middle: incisors of 8.5 and 6.5 mm in a mouth of 50 mm
LATERAL = (0.225, 0.065, 0.020)  # middle, half width, and how much shorter than its neighbours the second incisor is
OWN_TEETH_FOLLOW = 0.6  # the source's own teeth go this share of the way with the upper lip, so that it hides them evenly
LEAST_OPENING = 0.3  # pixels; lips that are less apart hide everything


def paint_interiors(
    geometries: Sequence[MouthGeometry], mouths: MouthRow, light: FaceLight, fields: MouthFields, rows: Floats
) -> list[Paint | None]:
    """The insides of opened mouths, None where nothing is to be painted. rows: float32 [n, PARTS].

    A closed mouth in the source that stays closed gets no paint at all.
    """
    part = rows.T[..., None]
    wanted = (part[Part.OPENING] * mouths.unit >= LEAST_OPENING) | (mouths.parted > 0)
    paints: list[Paint | None] = [None] * len(geometries)
    canvas = make_canvas(geometries, mouths, fields, wanted[:, 0].tolist())
    if canvas is None:
        return paints
    _cavity(canvas, mouths, light)
    _lower_teeth(canvas, mouths, light, part[Part.TEETH] * (1 - part[Part.ROUNDING]))
    _tongue(canvas, mouths, light, part[Part.TONGUE])
    _upper_teeth(canvas, mouths, light, part[Part.TEETH] * (1 - 0.6 * part[Part.ROUNDING]))
    alpha, line_share = _seen(canvas, mouths)
    canvas.lay(line_share, light.lips.scaled(0.48, 1.0))
    weight, length = _own_teeth(canvas, mouths, 1 - smooth_step(0.1, 0.75, part[Part.ROUNDING]))  # rounded lips leave them in the dark
    weight *= 1 - line_share
    for patch in canvas.patches:
        mouth, samples, shape = geometries[patch.mouth], patch.samples, patch.shape
        own = None
        if mouth.parted > 0:
            shift = length[samples].reshape(shape)
            own = OwnTeeth(weight[samples].reshape(shape), shift * mouth.down[0], shift * mouth.down[1])
        luma, chroma = canvas.luma[samples].reshape(shape), canvas.chroma[:, samples].reshape(2, *shape)
        paints[patch.mouth] = Paint(patch.box, luma, chroma, alpha[samples].reshape(shape), own)
    return paints


def _bump(distance: Reals) -> Floats:
    """A Gaussian bell; its far tail is cut before it becomes denormal numbers, which are slow."""
    return np.asarray(np.exp(-(distance * distance).clip(0, 40)), np.float32)


def _seen(c: Canvas, mouths: MouthRow) -> tuple[Floats, Floats]:
    """How much is seen of each sample, 0..1: all between the lips, nothing on them; and how much of that is their line.

    Parted lips that are brought together have no line of their own: one is shaded.
    """
    soft = np.maximum(1.3 / mouths.unit, 0.022)
    line = (1 - ramp(0, 2 * soft, c.gap)) * np.sqrt((1 - c.place**2).clip(0)) * (0.9 * mouths.parted)
    wide, line = c.spread(ramp(0, soft, c.gap), line)
    (sharpness,) = c.each(1 / soft)
    depth = c.depth * sharpness
    between = (depth + 0.5).clip(0, 1) * (c.height * sharpness + 0.5).clip(0, 1) * wide
    line *= _bump(depth * 1.25)
    seen = between + line
    return seen.clip(0, 1), line / seen.clip(1e-3)


def _cavity(c: Canvas, mouths: MouthRow, light: FaceLight) -> None:
    """Dark behind the upper lip; warmer and a little brighter towards the lower one, where light falls in."""
    (darkening,) = c.spread(-1 / np.maximum(0.30 * c.gap, 1 / mouths.unit))
    front = np.exp(c.height.clip(0) * darkening)
    c.fill(Color(light.skin.y, light.skin.scaled(0, 0.35).u, light.lips.scaled(0, 0.5).v), 0.06 + 0.12 * front)


def _tongue(c: Canvas, mouths: MouthRow, light: FaceLight, raised: Reals) -> None:
    """A mound on the floor of the mouth, rising with `raised`; its front is lit, its back is not."""
    top = (0.34 + 0.45 * raised) * c.gap * (1 - 0.6 * c.place**2)
    weight = (0.65 + 0.25 * raised) * smooth_step(0.03, 0.12, c.gap) * (1 - np.abs(c.place).clip(0, 1) ** 3)
    steepness, per_gap = 1 / np.maximum(0.20 * c.gap, 2 / mouths.unit), 1 / np.maximum(c.gap, 1 / mouths.unit)
    top, weight, steepness, per_gap = c.spread(top, weight, steepness, per_gap)
    mound = smooth_step(-1, 1, (top - c.height) * steepness)
    back = smooth_step(-0.1, 0.8, c.height * per_gap)
    c.lay(mound * weight, light.lips.scaled(0.70, 1.0), 1 - 0.55 * back)


def _upper_teeth(c: Canvas, mouths: MouthRow, light: FaceLight, shown: Reals) -> None:
    """The upper row belongs to the skull: it hangs a little below where the lips meet, and shows where the lips let it."""
    size = smooth_step(SMALL, LARGE, mouths.unit)
    aside, round_off = np.abs(c.x), 1 - 0.45 * c.place**2
    edges = sum((_bump((aside - edge) * (1 / 0.013)) for edge in TOOTH_EDGES), np.zeros_like(aside))
    shorter = LATERAL[2] * _bump((aside - LATERAL[0]) * (1 / LATERAL[1])) + 0.010 * edges
    hang = (0.038 + 0.045 * shown) * round_off - size * shorter
    weight = (1 - smooth_step(0.6, 0.95, np.abs(c.place))) * ((0.75 + 0.22 * size) * smooth_step(0.0, 0.4, shown))
    hang, weight, lit = c.spread(hang, weight, round_off * (1 - 0.11 * size * edges))
    (sharpness,) = c.each(1 / np.maximum(1.6 / mouths.unit, 0.022))
    body = ((hang - c.below_rest) * sharpness + 0.5).clip(0, 1)
    in_shadow = 0.62 + 0.38 * smooth_step(0, 0.05, c.depth)  # of the lip above
    c.lay(body * weight, light.skin.scaled(1.0 + 0.17 * size, 0.62), in_shadow * lit)


def _lower_teeth(c: Canvas, mouths: MouthRow, light: FaceLight, shown: Reals) -> None:
    """The lower row belongs to the jaw: its edges look over the lower lip of a wide mouth, in the shade of the upper ones."""
    weight = smooth_step(0.10, 0.20, c.gap) * (0.6 * smooth_step(SMALL, LARGE, mouths.unit) * shown)
    if not weight.any():
        return
    square = c.place**2
    weight *= 1 - smooth_step(0.45, 0.75, np.abs(c.place))
    stand, weight, lit = c.spread(0.035 * (1 - 0.8 * square), weight, 1 - 0.4 * square)
    (sharpness,) = c.each(1 / np.maximum(1.6 / mouths.unit, 0.02))
    body = ((stand - c.height) * sharpness + 0.5).clip(0, 1)
    c.lay(body * weight, light.skin.scaled(0.72, 0.5), lit)


def _own_teeth(c: Canvas, mouths: MouthRow, shown: Reals) -> tuple[Floats, Floats]:
    """Where the source shows its own teeth, they are shown: with what weight, and from how far down, in pixels."""
    shift = OWN_TEETH_FOLLOW * c.moved
    apart = shown * mouths.parted * smooth_step(0.02, 0.06, c.source_gap)
    top, per_gap, apart, length = c.spread(shift + c.source_upper, 1 / c.source_gap, apart, shift * -mouths.unit)
    v = (c.y - top) * per_gap
    return apart * smooth_step(0.0, 0.10, v) * (1 - smooth_step(0.55, 0.85, v)), length
