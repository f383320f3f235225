"""The mouth of one picture in its own coordinates: x along the mouth, y down the face, unit = the mouth's width."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import AvatarFrame, Box, Floats
from gpuserver.musetalk.vision import landmarks as face

Reals = NDArray[np.floating]  # results of arithmetic on float32, which type checkers take for float64

COLUMNS, ROWS = 72, 60  # of the grid on which displacements are computed

LEFT_OVAL, RIGHT_OVAL = (132, 58, 172), (361, 288, 397)  # the face's sides at the height of the mouth

LEAST_WIDTH = 0.55  # of the distance of the outer eye corners; a pursed mouth keeps this unit
NEUTRAL_WIDTH = 0.66  # of the distance of the outer eye corners
NECK = 0.55  # below the chin the jaw's motion fades over this length
CHEEK = 0.45  # above the nose's base, at the sides of the face
CLOSED_GAP, OPEN_GAP = 0.025, 0.07  # gaps below the first are the landmarks' own noise, above the second are real


def ramp(low: float | Reals, high: float | Reals, value: Reals) -> Floats:
    """0 below `low`, 1 above `high`, a straight line in between."""
    scale = 1 / (high - low)
    return np.asarray(value * scale - low * scale, np.float32).clip(0, 1)


def smooth_step(low: float, high: float, value: Reals) -> Floats:
    """0 below `low`, 1 above `high`, a cubic in between."""
    s = ramp(low, high, value)
    return np.asarray(s * s * (3 - 2 * s), np.float32)


def smooth(low: float, high: float, value: float) -> float:
    """smooth_step of one number, without an array's overhead."""
    s = min(max((value - low) / (high - low), 0.0), 1.0)
    return s * s * (3 - 2 * s)


@dataclass(frozen=True, slots=True, eq=False)
class MouthGeometry:
    """Where the mouth of one picture lies and what it looks like before it is moved.

    Curves are float32 [COLUMNS], heights y over the grid's columns; beyond the corners all four lip curves are one.
    """

    unit: float  # pixels per mouth width
    origin: Floats  # [2] pixels, between the corners
    across: Floats  # [2] unit vector from the left to the right corner
    down: Floats  # [2] unit vector from the mouth to the chin
    box: Box  # even, inside the picture
    x: Floats  # [COLUMNS]
    y: Floats  # [ROWS]
    middle: float  # x of the middle of the lips
    left: float  # x of the left corner
    right: float
    left_side: float  # x where the face ends
    right_side: float
    nose: float  # y of the nose's base
    upper_outer: Floats
    upper_inner: Floats
    lower_inner: Floats
    lower_outer: Floats
    jaw: Floats  # the chin's contour
    pull: Floats  # how far each column goes to the right when the corners go outwards by 1
    pull_limit: Floats  # the corners on its side go no further, or the skin beside them would fold
    hold: Floats  # 1 in the middle of the face, 0 at its sides
    neutral: float  # the width this mouth has when it does not smile, estimated from the eyes, in present widths
    opening: float  # largest gap between the inner lips, 0 when it is only noise
    parted: float  # 0 where the lips are closed, 1 where they are clearly apart

    def places(self, box: Box, step: int = 1) -> tuple[Floats, Floats]:
        """Mouth coordinates x and y, float32 [h / step, w / step], of the middles of a box's squares of `step` pixels."""
        centre = (step - 1) / 2
        right = np.arange(box.left, box.right, step, dtype=np.float32) + np.float32(centre - self.origin[0])
        below = np.arange(box.top, box.bottom, step, dtype=np.float32)[:, None] + np.float32(centre - self.origin[1])
        across, down = self.across / np.float32(self.unit), self.down / np.float32(self.unit)
        return right * across[0] + below * across[1], right * down[0] + below * down[1]

    def box_around(self, left: float, top: float, right: float, bottom: float, multiple: int = 2) -> Box | None:
        """The pixels around a rectangle of mouth coordinates, two inside the mouth's box; None if there are none.

        The box begins on even pixels; its sides are multiples of `multiple`, which is even.
        """
        room, sides = self.box, []
        for axis, (low_end, high_end) in enumerate(((room.left + 2, room.right - 2), (room.top + 2, room.bottom - 2))):
            across, down, origin = float(self.across[axis]), float(self.down[axis]), float(self.origin[axis])
            spans = sorted((left * across, right * across)), sorted((top * down, bottom * down))
            low = max(math.floor((origin + self.unit * (spans[0][0] + spans[1][0])) / 2) * 2, low_end)
            high = math.ceil(origin + self.unit * (spans[0][1] + spans[1][1]))
            size = min(-(-(high - low) // multiple), (high_end - low) // multiple) * multiple
            if size < multiple:
                return None
            sides.append((low, low + size))
        (x_low, x_high), (y_low, y_high) = sides
        return Box(x_low, y_low, x_high, y_high)

    def box_to_grid(self, box: Box, step: int = 1) -> NDArray[np.float64]:
        """The affine map [2, 3] from a box's squares of `step` pixels to (column, row) of the grid."""
        corner = (box.left + (step - 1) / 2 - float(self.origin[0]), box.top + (step - 1) / 2 - float(self.origin[1]))
        rows = []
        for direction, ticks in ((self.across, self.x), (self.down, self.y)):
            spacing = float(ticks[1] - ticks[0])
            right, below = float(direction[0]) / (self.unit * spacing), float(direction[1]) / (self.unit * spacing)
            rows.append((right * step, below * step, right * corner[0] + below * corner[1] - float(ticks[0]) / spacing))
        return np.array(rows)


def measure_mouth(frame: AvatarFrame) -> MouthGeometry:
    """The geometry of the mouth in a frame's picture, from its landmarks."""
    points = frame.landmarks.astype(np.float32)
    width = points[face.RIGHT_CORNER] - points[face.LEFT_CORNER]
    length = float(np.hypot(*width))
    eyes = face.eye_distance(points)
    unit = max(length, LEAST_WIDTH * eyes, 1.0)
    across = width / max(length, 1e-3)
    down = np.array([-across[1], across[0]], np.float32)
    origin = (points[face.LEFT_CORNER] + points[face.RIGHT_CORNER]) / 2

    offset = (points - origin) / np.float32(unit)
    local = np.stack([offset @ across, offset @ down], -1)
    left, right = float(local[face.LEFT_CORNER, 0]), float(local[face.RIGHT_CORNER, 0])
    left_side = min(float(local[list(LEFT_OVAL), 0].min()), left - 0.12)
    right_side = max(float(local[list(RIGHT_OVAL), 0].max()), right + 0.12)
    nose = min(float(local[face.NOSE_BASE, 1]), -0.2)
    chin = max(float(local[list(face.JAW), 1].max()), 0.35)
    x = np.linspace(left_side - 0.05, right_side + 0.05, COLUMNS, dtype=np.float32)
    y = np.linspace(nose - CHEEK - 0.05, chin + NECK + 0.12, ROWS, dtype=np.float32)

    upper_outer, upper_inner, lower_inner, lower_outer, opening = _lips(x, local)
    middle = float(local[[face.UPPER_LIP_CENTRE, face.LOWER_LIP_CENTRE], 0].mean())
    middle = min(max(middle, left + 0.1), right - 0.1)
    pull, pull_limit = _pull(x - middle, middle - left, right - middle, middle - left_side, right_side - middle)
    rim = np.array([[x[0], y[0]], [x[-1], y[0]], [x[-1], y[-1]], [x[0], y[-1]]], np.float32)
    corners = origin + unit * (rim[:, :1] * across + rim[:, 1:] * down)
    return MouthGeometry(
        unit=unit, origin=origin, across=across, down=down,
        box=_even_box(corners, frame.picture.shape[1], frame.picture.shape[0] * 2 // 3),
        x=x, y=y, middle=middle, left=left, right=right,
        left_side=left_side, right_side=right_side, nose=nose,
        upper_outer=upper_outer, upper_inner=upper_inner, lower_inner=lower_inner, lower_outer=lower_outer,
        jaw=_curve(x, local[list(face.JAW)]), opening=opening, parted=smooth(0.02, 0.12, opening),
        pull=pull, pull_limit=pull_limit,
        hold=1 - smooth_step(0.2, 0.95, np.abs(x - middle) / np.where(x > middle, right_side - middle, middle - left_side)),
        neutral=min(max(NEUTRAL_WIDTH * eyes / unit, 0.92), 1.2),
    )  # fmt: skip


def _lips(x: Floats, local: Floats) -> tuple[Floats, Floats, Floats, Floats, float]:
    """The four contours from the nose to the chin, and the largest gap. A gap that is only the landmarks' noise is none."""
    upper_outer, upper_inner, lower_inner, lower_outer = (
        _curve(x, local[list(indices)])
        for indices in (face.UPPER_OUTER_LIP, face.UPPER_INNER_LIP, face.LOWER_INNER_LIP, face.LOWER_OUTER_LIP)
    )
    line = np.asarray((upper_inner + lower_inner) / 2, np.float32)
    gap: Floats = np.maximum(lower_inner - upper_inner, 0)
    certain = smooth(CLOSED_GAP, OPEN_GAP, float(gap.max()))
    gap = _widened(np.asarray(gap * certain, np.float32))
    half = np.asarray(gap / 2, np.float32)
    top, bottom = line - half, line + half
    return np.minimum(upper_outer, top), top, bottom, np.maximum(lower_outer, bottom), float(gap.max())


def _pull(distance: Floats, left: float, right: float, left_side: float, right_side: float) -> tuple[Floats, Floats]:
    """MouthGeometry.pull and .pull_limit. distance: of each column to the right of the middle; the others: of corners and sides."""
    is_right = distance > 0
    half, side = np.where(is_right, right, left), np.where(is_right, right_side, left_side)
    s, end = np.abs(distance) / half, side / half
    inside = np.sin(np.pi / 2 * np.minimum(s, 1))
    outside = np.cos(np.pi / 2 * np.clip((s - 1) / (end - 1), 0, 1)) ** 2
    pull = np.sign(distance) * np.where(s < 1, inside, outside)
    # A cosine's slope stays below 1: no fold beside the corner.
    return np.asarray(pull, np.float32), np.asarray(0.35 * (side - half), np.float32)


def _curve(x: Floats, points: Floats) -> Floats:
    """Heights over `x` of a contour given by a few points from left to right, rounded where they join."""
    ascending = np.maximum.accumulate(points[:, 0] + np.arange(len(points), dtype=np.float32) * 1e-5)
    heights = np.interp(x, ascending, points[:, 1])
    padded = np.pad(heights, 2, mode="edge")
    return np.asarray(np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, "valid"), np.float32)


def _widened(gap: Floats) -> Floats:
    """The gap, reaching two columns further to each side: the dark corners of a smile lie beside its landmarks."""
    padded = np.pad(gap, 2, mode="edge")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 5).max(1), np.float32)


def _even_box(corners: NDArray[np.floating], width: int, height: int) -> Box:
    """The smallest box with even coordinates around the corners, inside the picture; 2 x 2 pixels at least."""
    low = np.floor(corners.min(0) / 2).astype(int) * 2
    high = np.ceil(corners.max(0) / 2).astype(int) * 2
    left, top = int(np.clip(low[0], 0, width - 2)), int(np.clip(low[1], 0, height - 2))
    return Box(left, top, int(np.clip(high[0], left + 2, width)), int(np.clip(high[1], top + 2, height)))
