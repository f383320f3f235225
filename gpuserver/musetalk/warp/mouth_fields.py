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
from gpuserver.musetalk.warp.mouth_geometry import CHEEK, NECK, MouthGeometry, smooth, smooth_step
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
    """The moved mouth. Curves and fields are in mouth coordinates over the grid's columns (and rows).

    backward: float32 [ROWS, COLUMNS, 4]: x displacement, y displacement above the lip line, the same below, height
    below the lip line; a pixel of the wanted picture at p shows the source at p + displacement.
    """

    upper_inner: Floats
    lower_inner: Floats
    rest_line: Floats  # where the lips would meet
    place: Floats  # -1 at the left corner, 0 in the middle, 1 at the right corner
    backward: Floats


def move_mouth(mouth: MouthGeometry, row: Floats) -> MouthFields:
    """The fields that give the mouth of a picture the shape of a feature row."""
    opening = _visible(mouth.neutral * max(float(row[Part.OPENING]), 0.0), mouth)
    smile = SMILE_FADES * min(opening, 0.4) + SMILE_ROUNDS * float(row[Part.ROUNDING])
    sideways = _sideways(mouth, float(row[Part.WIDTH]) - mouth.parted * smile)
    source_x = mouth.x - sideways
    uo, ui, li, lo, jaw = (
        np.interp(source_x, mouth.x, curve).astype(np.float32)
        for curve in (mouth.upper_outer, mouth.upper_inner, mouth.lower_inner, mouth.lower_outer, mouth.jaw)
    )
    place = _place(mouth, source_x)
    gap = li - ui
    chin_drop = mouth.neutral * float(row[Part.JAW]) - 0.3 * (1 - UPPER_CLOSES) * mouth.opening

    # Inner lips: first closed onto the rest line, then opened.
    hold = _side_window(mouth, mouth.x)
    smiling = np.maximum(ui[np.argmin(np.abs(place))] - ui, 0)  # how far the corners are pulled up
    serious = FLATTENED * mouth.parted * min(opening / 0.2, 1.0)
    corner = (CORNER_DROP * chin_drop + serious * smiling) * hold
    aperture = opening * _aperture(place, opening, float(row[Part.ROUNDING]))
    share = UPPER_SHARE + (LIFTED_SHARE - UPPER_SHARE) * float(row[Part.LIFT])
    rest_line = ui + UPPER_CLOSES * gap
    upper_target = rest_line + corner - share * aperture
    lower_target = upper_target + aperture

    inset = INSET * mouth.parted * smooth_step(0.0, 0.05, gap)
    upper_source, lower_source = ui - inset * (ui - uo), li + inset * (lo - li)
    fuller = 1 + 0.22 * float(row[Part.ROUNDING]) - 0.50 * float(row[Part.PRESS]) - 0.25 * smooth(0.15, 0.5, opening)
    upper_outer_target = upper_target - (upper_source - uo) * (1 + (fuller - 1) * 0.7)
    lower_outer_target = lower_target + (lo - lower_source) * fuller

    top = mouth.nose - CHEEK * smooth_step(0.5, 1.6, np.abs(place)) + 0.02
    upper = _column_map(mouth.y, [top, uo, upper_source], [top, upper_outer_target, upper_target])
    below_chin = jaw + NECK
    lower = -_column_map(  # from below: the neck stands still, the lip gives way
        -mouth.y,
        [-below_chin, -jaw, -lo, -lower_source],
        [-below_chin, -(jaw + chin_drop * hold), -lower_outer_target, -lower_target],
    )
    backward = np.empty((len(mouth.y), len(mouth.x), 4), np.float32)
    line = (upper_target + lower_target) / 2
    backward[..., 0] = -sideways * _height_window(mouth, line, jaw)
    backward[..., 1] = cv2.GaussianBlur(upper, (3, 5), 0)
    backward[..., 2] = cv2.GaussianBlur(lower, (3, 5), 0)
    backward[..., 3] = mouth.y[:, None] - line
    backward[..., :3] *= _rim(backward.shape[0], backward.shape[1])[..., None]
    return MouthFields(upper_target, lower_target, rest_line + corner, place, backward)


def _visible(opening: float, mouth: MouthGeometry) -> float:
    """The opening to draw: a small mouth articulates more, or its small openings are lost between two pixels.

    Parted lips need half of it: their teeth are seen at once.
    """
    small = 1 - smooth(*SMALL_MOUTH, mouth.unit)
    lost = min(opening / 0.10, 1.0) * (1 - 0.7 * smooth(0.20, 0.40, opening))
    return opening + EXAGGERATION * small * (1 - 0.5 * mouth.parted) * lost


def _column_map(y: Floats, source: list[Floats], target: list[Floats]) -> Floats:
    """Displacement back to the source, [rows, columns], linear between knots and constant outside the first and last.

    The first knot of a column stays where it is; a knot that comes too near to the one before is kept off.
    """
    ordered_source, ordered = [source[0]], [source[0]]
    for knot, wanted in zip(source[1:], target[1:], strict=True):
        ordered_source.append(np.maximum(knot, ordered_source[-1] + LEAST_LENGTH))
        least = LEAST_STRETCH * (ordered_source[-1] - ordered_source[-2])
        ordered.append(np.maximum(wanted + (ordered_source[-1] - knot), ordered[-1] + least))
    shifts = [s - t for s, t in zip(ordered_source, ordered, strict=True)]
    field = np.broadcast_to(shifts[0], (len(y), len(shifts[0]))).copy()
    for k in range(1, len(ordered)):
        ramp = np.clip((y[:, None] - ordered[k - 1]) / (ordered[k] - ordered[k - 1]), 0, 1)
        field += ramp * (shifts[k] - shifts[k - 1])
    return field


def _sideways(mouth: MouthGeometry, width: float) -> Floats:
    """How far each column moves to the right at the height of the lips."""
    distance = mouth.x - mouth.middle
    is_right = distance > 0
    half = np.where(is_right, mouth.right - mouth.middle, mouth.middle - mouth.left)
    side = np.where(is_right, mouth.right_side - mouth.middle, mouth.middle - mouth.left_side)
    s, end = np.abs(distance) / half, side / half
    inside = np.sin(np.pi / 2 * np.minimum(s, 1))
    outside = np.cos(np.pi / 2 * np.clip((s - 1) / (end - 1), 0, 1)) ** 2
    limit = 0.35 * (side - half)  # a cosine's slope stays below 1: no fold beside the corner
    reach = np.clip(width, -limit, limit)
    return np.asarray(np.sign(distance) * reach * np.where(s < 1, inside, outside), np.float32)


def _place(mouth: MouthGeometry, x: Floats) -> Floats:
    distance = x - mouth.middle
    return np.asarray(distance / np.where(distance > 0, mouth.right - mouth.middle, mouth.middle - mouth.left), np.float32)


def _aperture(place: Floats, opening: float, rounding: float) -> Floats:
    """The gap's height along the mouth, 1 in the middle: pointed corners when nearly closed, rounder when wide open."""
    reach = 0.94 - 0.36 * rounding
    exponent = 1.0 - 0.28 * smooth(0.05, 0.40, opening) - 0.30 * rounding
    return np.asarray(np.clip(1 - (place / reach) ** 2, 0, 1) ** exponent, np.float32)


def _side_window(mouth: MouthGeometry, x: Floats) -> Floats:
    """1 in the middle of the face, 0 at its sides."""
    distance = x - mouth.middle
    side = np.where(distance > 0, mouth.right_side - mouth.middle, mouth.middle - mouth.left_side)
    return 1 - smooth_step(0.2, 0.95, np.abs(distance) / side)


def _height_window(mouth: MouthGeometry, line: Floats, jaw: Floats) -> Floats:
    """1 at the lip line, 0 at the nose's base and at the chin; [rows, columns]."""
    offset = mouth.y[:, None] - line
    reach = np.where(offset < 0, line - mouth.nose, np.maximum(0.85 * (jaw - line), 0.25))
    return np.asarray(np.cos(np.pi / 2 * np.clip(np.abs(offset) / reach, 0, 1)) ** 2, np.float32)


def _rim(rows: int, columns: int) -> Floats:
    """1 inside, exactly 0 on the grid's two outermost rows and columns."""
    rim = np.zeros((rows, columns), np.float32)
    rim[2:-2, 2:-2] = 1
    return rim
