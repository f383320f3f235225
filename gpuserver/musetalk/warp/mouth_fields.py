"""How the skin around the mouth moves: a map from a wanted picture back to the source, column by column.

Along every column of the mouth's grid, a few knots (nose, lip contours, chin, neck) go from their place in the source to
their place in the wanted picture, in the same order, so that nothing folds over. Above and below the lip line there are
two such maps; they are one at the corners and beyond, so that nothing tears there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gpuserver.domain import Floats
from gpuserver.musetalk.warp.mouth_geometry import CHEEK, COLUMNS, NECK, smooth_step
from gpuserver.musetalk.warp.mouth_row import MouthRow
from gpuserver.musetalk.warp.mouth_shape import Part

CORNER_DROP = 0.3  # of the chin's drop
UPPER_SHARE, LIFTED_SHARE = 0.14, 0.32  # of the opening made by the upper lip, relaxed and lifted
UPPER_CLOSES = 0.05  # of a parted source's gap is closed by the upper lip
LEAST_LENGTH = 0.02  # of a piece of skin, in mouth widths: contours run together at the corners
LEAST_STRETCH = 0.35  # no piece of skin shrinks below this share of its length
FLATTENED = 0.4  # of a smile's curve goes when the mouth opens to speak
SMILE_FADES = 0.34  # a parted (mostly smiling) mouth gives up this much of its width at each corner per unit of opening
SMALL_MOUTH = (40.0, 100.0)  # pixels: at the first width and below articulation is exaggerated in full, above the second not
EXAGGERATION = 0.06  # added to the opening
SMILE_ROUNDS = 0.07  # and this much to rounded lips
INSET = 0.25  # of a parted lip's thickness is cut off at its inner edge, where teeth shine through


@dataclass(frozen=True, slots=True, eq=False)
class MouthFields:
    """Moved mouths. Curves (float32 [n, COLUMNS]) and fields (float32 [n, ROWS, COLUMNS]) over the grid of each, in mouth coordinates.

    backward: float32 [4, n, ROWS, COLUMNS]: x displacement, y displacement above the lip line, the same below, height
    below the lip line; a pixel of the wanted picture at p shows the source at p + displacement.
    """

    upper_inner: Floats
    lower_inner: Floats
    rest_line: Floats  # where the lips would meet
    place: Floats  # -1 at the left corner, 0 in the middle, 1 at the right corner
    backward: Floats


def move_mouths(mouths: MouthRow, rows: Floats) -> MouthFields:
    """The fields that give each mouth the shape of its feature row, float32 [n, PARTS]."""
    part = rows.T[..., None]
    rounding = part[Part.ROUNDING]
    opening = _visible(mouths.neutral * part[Part.OPENING].clip(0), mouths)
    smile = SMILE_FADES * opening.clip(0, 0.4) + SMILE_ROUNDS * rounding
    width = part[Part.WIDTH] - mouths.parted * smile
    sideways = mouths.pull * width.clip(-mouths.pull_limit, mouths.pull_limit)
    source_x = mouths.x - sideways
    uo, ui, li, lo, jaw = _curves_at(mouths, source_x)
    place = _place(mouths, source_x)
    gap = li - ui
    chin_drop = mouths.neutral * part[Part.JAW] - (0.3 * (1 - UPPER_CLOSES)) * mouths.opening

    # Inner lips: first closed onto the rest line, then opened.
    smiling = (np.take_along_axis(ui, np.abs(place).argmin(1)[:, None], 1) - ui).clip(0)  # how far the corners are pulled up
    serious = FLATTENED * mouths.parted * (opening / 0.2).clip(0, 1)
    corner = (CORNER_DROP * chin_drop + serious * smiling) * mouths.hold
    aperture = opening * _aperture(place, opening, rounding)
    share = UPPER_SHARE + (LIFTED_SHARE - UPPER_SHARE) * part[Part.LIFT]
    rest_line = ui + UPPER_CLOSES * gap + corner
    upper_target = rest_line - share * aperture
    lower_target = upper_target + aperture

    inset = INSET * mouths.parted * smooth_step(0.0, 0.05, gap)
    upper_source, lower_source = ui - inset * (ui - uo), li + inset * (lo - li)
    fuller = 1 + 0.22 * rounding - 0.50 * part[Part.PRESS] - 0.25 * smooth_step(0.15, 0.5, opening)
    upper_outer_target = upper_target - (upper_source - uo) * (1 + (fuller - 1) * 0.7)
    lower_outer_target = lower_target + (lo - lower_source) * fuller

    line = (upper_target + lower_target) / 2
    below = mouths.y[:, :, None] - line[:, None]
    top = mouths.nose - CHEEK * smooth_step(0.5, 1.6, np.abs(place)) + np.float32(0.02)
    below_chin = jaw + NECK
    backward = np.empty((4, *below.shape), np.float32)
    backward[0] = -sideways[:, None] * _height_window(mouths, below, line, jaw)
    backward[1] = _column_map(mouths.y, [top, uo, upper_source], [top, upper_outer_target, upper_target])
    backward[2] = -_column_map(  # from below: the neck stands still, the lip gives way
        -mouths.y,
        [-below_chin, -jaw, -lo, -lower_source],
        [-below_chin, -(jaw + chin_drop * mouths.hold), -lower_outer_target, -lower_target],
    )
    backward[3] = below
    _soften(backward[1:3])
    _steady_rim(backward[:3])
    return MouthFields(upper_target, lower_target, rest_line, place, backward)


def _visible(opening: Floats, mouths: MouthRow) -> Floats:
    """The opening to draw: a small mouth articulates more, or its small openings are lost between two pixels.

    Parted lips need half of it: their teeth are seen at once.
    """
    small = 1 - smooth_step(*SMALL_MOUTH, mouths.unit)
    lost = (opening / 0.10).clip(0, 1) * (1 - 0.7 * smooth_step(0.20, 0.40, opening))
    return np.asarray(opening + EXAGGERATION * small * (1 - 0.5 * mouths.parted) * lost, np.float32)


def _curves_at(mouths: MouthRow, x: Floats) -> Floats:
    """The contours at other places than the grid's columns, constant beyond them: float32 [5, n, COLUMNS]."""
    curves = np.array((mouths.upper_outer, mouths.upper_inner, mouths.lower_inner, mouths.lower_outer, mouths.jaw))
    column = ((x - mouths.x[:, :1]) / (mouths.x[:, 1:2] - mouths.x[:, :1])).clip(0, COLUMNS - 1)
    left = column.astype(np.intp).clip(0, COLUMNS - 2)
    index = left + np.arange(0, len(x) * COLUMNS, COLUMNS)[:, None]
    flat = curves.reshape(len(curves), -1)
    before, after = flat.take(index, axis=1), flat.take(index + 1, axis=1)
    return np.asarray(before + (after - before) * (column - left).astype(np.float32), np.float32)


def _column_map(y: Floats, source: list[Floats], target: list[Floats]) -> Floats:
    """Displacement back to the source, [n, rows, columns], linear between knots and constant outside the first and last.

    The first knot of a column stays where it is; a knot that comes too near to the one before is kept off.
    """
    ordered_source, ordered = [source[0]], [source[0]]
    for knot, wanted in zip(source[1:], target[1:], strict=True):
        ordered_source.append(np.maximum(knot, ordered_source[-1] + LEAST_LENGTH))
        least = LEAST_STRETCH * (ordered_source[-1] - ordered_source[-2])
        ordered.append(np.maximum(wanted + (ordered_source[-1] - knot), ordered[-1] + least))
    shifts = [s - t for s, t in zip(ordered_source, ordered, strict=True)]
    field = np.zeros((*y.shape, COLUMNS), np.float32)
    for k in range(1, len(ordered)):
        way = y[:, :, None] - ordered[k - 1][:, None]
        way *= (1 / (ordered[k] - ordered[k - 1]))[:, None]
        way.clip(0, 1, out=way)
        way *= (shifts[k] - shifts[k - 1])[:, None]
        field += way
    return field


def _place(mouths: MouthRow, x: Floats) -> Floats:
    distance = x - mouths.middle
    return np.asarray(distance / np.where(distance > 0, mouths.right - mouths.middle, mouths.middle - mouths.left), np.float32)


def _aperture(place: Floats, opening: Floats, rounding: Floats) -> Floats:
    """The gap's height along the mouth, 1 in the middle: pointed corners when nearly closed, rounder when wide open."""
    reach = 0.94 - 0.36 * rounding
    exponent = 1.0 - 0.28 * smooth_step(0.05, 0.40, opening) - 0.30 * rounding
    return np.asarray((1 - (place / reach) ** 2).clip(0) ** exponent, np.float32)


def _height_window(mouths: MouthRow, below: Floats, line: Floats, jaw: Floats) -> Floats:
    """1 at the lip line, 0 at the nose's base and at the chin; [n, rows, columns]. below: the line, as high as that."""
    above, under = -1 / (line - mouths.nose), 1 / np.maximum(0.85 * (jaw - line), 0.25)
    way = np.maximum(below * above[:, None], below * under[:, None])
    return np.asarray(0.5 + 0.5 * np.cos(np.float32(np.pi) * way.clip(0, 1)), np.float32)


def _soften(layers: Floats) -> None:
    """Round the fields' creases, in place. What runs over from one field into the next one is taken away with the rim."""
    flat = layers.reshape(-1, layers.shape[-1])
    cv2.GaussianBlur(flat, (3, 5), 0, dst=flat)


def _steady_rim(fields: Floats) -> None:
    """Nothing moves on the grid's two outermost rows and columns."""
    fields[..., :2, :] = fields[..., -2:, :] = 0
    fields[..., :2] = fields[..., -2:] = 0
