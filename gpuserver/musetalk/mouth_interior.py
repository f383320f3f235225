"""What is seen between the lips: a dark cavity in the face's own light, a row of upper teeth, the tongue."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gpuserver.domain import AvatarFrame, Box, Floats
from gpuserver.musetalk.mouth_fields import MouthFields
from gpuserver.musetalk.mouth_geometry import MouthGeometry, smooth_step
from gpuserver.musetalk.mouth_shape import Part

BLACK = 16  # limited range luma
SMALL, LARGE = 30.0, 80.0  # mouth widths in pixels: below the first, teeth are only hinted at
TOOTH_EDGES = (0.0, 0.165, 0.295, 0.395)  # in mouth widths from the middle: incisors of 8.5 and 6.5 mm in a mouth of 50 mm


@dataclass(frozen=True, slots=True)
class FaceLight:
    """How bright and how red this face is: limited-range luma and chroma of skin and lips."""

    skin: tuple[float, float, float]
    lips: tuple[float, float, float]


def measure_light(frame: AvatarFrame) -> FaceLight:
    """The face's light, from the skin beside and below the mouth and from the lower lip."""
    around = [205, 425, 206, 426, 212, 432, 204, 424, 200]
    lips = [84, 17, 314, 85, 16, 315, 180, 404]
    return FaceLight(_median_color(frame, around), _median_color(frame, lips))


def _median_color(frame: AvatarFrame, indices: list[int]) -> tuple[float, float, float]:
    height, width = frame.picture.shape[0] * 2 // 3, frame.picture.shape[1]
    points = np.clip(frame.landmarks[indices], 0, [width - 1, height - 1]).astype(int)
    y, u, v = planes(frame)
    half = points // 2
    return (
        float(np.median(y[points[:, 1], points[:, 0]])),
        float(np.median(u[half[:, 1], half[:, 0]])),
        float(np.median(v[half[:, 1], half[:, 0]])),
    )


def planes(frame: AvatarFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the three planes of an I420 picture: [h, w], [h / 2, w / 2], [h / 2, w / 2]."""
    width = frame.picture.shape[1]
    height = frame.picture.shape[0] * 2 // 3
    flat = frame.picture.reshape(-1)
    area = width * height
    return (
        flat[:area].reshape(height, width),
        flat[area : area * 5 // 4].reshape(height // 2, width // 2),
        flat[area * 5 // 4 :].reshape(height // 2, width // 2),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """Colour to lay over a box: alpha 0..1 and luma at full, chroma at half resolution."""

    box: Box
    alpha: Floats
    y: Floats
    u: Floats
    v: Floats

    def over(self, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
        """Blends into the three planes of a crop, in place; `box` is in the crop's own pixels."""
        b = self.box
        half = cv2.resize(self.alpha, (b.width // 2, b.height // 2), interpolation=cv2.INTER_AREA)
        for plane, color, alpha, scale in ((y, self.y, self.alpha, 1), (u, self.u, half, 2), (v, self.v, half, 2)):
            part = plane[b.top // scale : b.bottom // scale, b.left // scale : b.right // scale]
            under = part.astype(np.float32)
            part[...] = np.rint(under + alpha * (color - under)).astype(np.uint8)


def paint_interior(frame: AvatarFrame, mouth: MouthGeometry, light: FaceLight, fields: MouthFields, row: Floats) -> Paint | None:
    """The inside of the opened mouth, or None where nothing is to be painted."""
    parted = float(smooth_step(0.02, 0.12, mouth.opening))
    if row[Part.OPENING] * mouth.unit < 0.3 and parted == 0:
        return None
    box = _paint_box(mouth, fields)
    if box is None:
        return None
    place = _mouth_places(mouth, box)
    x, y = place[..., 0], place[..., 1]
    column = (x - mouth.x[0]) / (mouth.x[1] - mouth.x[0])
    ui, li, rest, t = (_sample(curve, column) for curve in (fields.upper_inner, fields.lower_inner, fields.rest_line, fields.place))

    unit = np.float32(mouth.unit)
    soft = max(1.3, 0.022 * mouth.unit)  # pixels
    depth, height = (y - ui) * unit, (li - y) * unit
    gap = np.maximum(depth + height, 0)
    alpha = np.clip(depth / soft + 0.5, 0, 1) * np.clip(height / soft + 0.5, 0, 1) * np.clip(gap / soft, 0, 1)

    luma, blue, red = _cavity(light, t, depth, height, gap)
    luma, blue, red = _tongue(light, luma, blue, red, t, height, gap, float(row[Part.TONGUE]), unit)
    luma, blue, red = _teeth(light, luma, blue, red, x - mouth.middle, t, (rest - y) * unit, depth, height, row, mouth.unit)
    luma, blue, red = _own_interior(frame, mouth, box, column, y, luma, blue, red, parted)

    if parted > 0:  # lips brought together have no line of their own: shade one
        line = parted * np.exp(-((depth / (0.8 * soft)) ** 2)) * np.sqrt(np.clip(1 - t * t, 0, 1)) * (1 - np.clip(gap / (2 * soft), 0, 1))
        dark = BLACK + 0.42 * (light.lips[0] - BLACK)
        total = np.maximum(alpha, 1e-4) + 0.6 * line
        luma = (luma * alpha + dark * 0.6 * line) / total
        blue = (blue * alpha + light.lips[1] * 0.6 * line) / total
        red = (red * alpha + light.lips[2] * 0.6 * line) / total
        alpha = np.minimum(alpha + 0.6 * line, 1)
    half = (box.width // 2, box.height // 2)
    crop = Box(box.left - mouth.box.left, box.top - mouth.box.top, box.right - mouth.box.left, box.bottom - mouth.box.top)
    return Paint(
        crop,
        alpha.astype(np.float32),
        luma.astype(np.float32),
        cv2.resize(blue.astype(np.float32), half, interpolation=cv2.INTER_AREA),
        cv2.resize(red.astype(np.float32), half, interpolation=cv2.INTER_AREA),
    )


def _paint_box(mouth: MouthGeometry, fields: MouthFields) -> Box | None:
    """Even box around the moved lips, inside the crop's box by two pixels; None if there is no room."""
    inside = np.abs(fields.place) <= 1.05
    x = mouth.x[inside][[0, -1, -1, 0]]
    top, bottom = fields.upper_inner[inside].min() - 0.06, fields.lower_inner[inside].max() + 0.06
    corners = mouth.origin + mouth.unit * (x[:, None] * mouth.across + np.array([top, top, bottom, bottom])[:, None] * mouth.down)
    low = np.maximum(np.floor(corners.min(0) / 2).astype(int) * 2, [mouth.box.left + 2, mouth.box.top + 2])
    high = np.minimum(np.ceil(corners.max(0) / 2).astype(int) * 2, [mouth.box.right - 2, mouth.box.bottom - 2])
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high - low >= 2).all() else None


def _mouth_places(mouth: MouthGeometry, box: Box) -> Floats:
    xs = np.arange(box.left, box.right, dtype=np.float32) - mouth.origin[0]
    ys = np.arange(box.top, box.bottom, dtype=np.float32) - mouth.origin[1]
    x = (xs[None, :] * mouth.across[0] + ys[:, None] * mouth.across[1]) / mouth.unit
    y = (xs[None, :] * mouth.down[0] + ys[:, None] * mouth.down[1]) / mouth.unit
    return np.stack([x, y], -1).astype(np.float32)


def _sample(curve: Floats, column: Floats) -> Floats:
    """A curve at fractional columns."""
    return np.interp(column.ravel(), np.arange(len(curve)), curve).reshape(column.shape).astype(np.float32)


def _cavity(light: FaceLight, t: Floats, depth: Floats, height: Floats, gap: Floats) -> tuple[Floats, Floats, Floats]:
    """Dark, warmer and a little brighter towards the lower lip and the corners' lips."""
    skin = light.skin[0] - BLACK
    front = np.exp(-np.maximum(height, 0) / np.maximum(0.35 * gap, 1))
    luma = BLACK + skin * (0.10 + 0.16 * front)
    blue = np.full_like(luma, 128 + 0.35 * (light.lips[1] - 128))
    red = np.full_like(luma, 128 + 0.55 * (light.lips[2] - 128))
    return luma, blue, red


def _tongue(light: FaceLight, luma, blue, red, t, height, gap, raised: float, unit):
    """A mound on the floor of the mouth, rising with `raised`."""
    top = (0.25 + 0.55 * raised) * gap
    mound = smooth_step(-0.25, 0.25, (top * (1 - 0.6 * t * t) - height) / np.maximum(0.12 * unit, 2.0)) * (1 - np.abs(np.clip(t, -1, 1)) ** 3)
    weight = mound * (0.25 + 0.5 * raised) * smooth_step(2.0, 6.0, gap)
    tongue = BLACK + 0.62 * (light.lips[0] - BLACK)
    return (
        luma + weight * (tongue - luma),
        blue + weight * (128 + 0.8 * (light.lips[1] - 128) - blue),
        red + weight * (128 + 0.9 * (light.lips[2] - 128) - red),
    )


def _teeth(light: FaceLight, luma, blue, red, x, t, above_rest, depth, height, row, unit: float):
    """The upper row, fixed to the skull: it hangs a little below where the lips meet, and shows where the lips let it."""
    size = float(smooth_step(SMALL, LARGE, unit))
    hang = (0.035 + 0.045 * float(row[Part.TEETH])) * (1 - 0.55 * t * t) * unit  # below the rest line, in pixels
    edge = max(1.6, 0.03 * unit)
    body = np.clip((hang + above_rest) / edge + 0.5, 0, 1)
    sides = 1 - smooth_step(0.55, 0.92, np.abs(t))
    weight = body * sides * (0.30 + 0.70 * size) * (0.25 + 0.75 * float(row[Part.TEETH]))
    skin = light.skin[0] - BLACK
    shade = (0.55 + 0.45 * smooth_step(0, 0.07 * unit, depth)) * (1 - 0.45 * t * t)
    lines = sum(np.exp(-(((np.abs(x) - e) / 0.012) ** 2)) for e in TOOTH_EDGES)
    shade = shade * (1 - 0.14 * size * lines)
    tooth = BLACK + skin * (0.78 + 0.22 * size) * shade
    return (
        luma + weight * (tooth - luma),
        blue + weight * (128 + 0.45 * (light.skin[1] - 128) - blue),
        red + weight * (128 + 0.30 * (light.skin[2] - 128) - red),
    )


def _own_interior(frame, mouth, box, column, y, luma, blue, red, parted: float):
    """Where the source shows its own teeth, they are shown: the upper ones do not move with the jaw."""
    if parted == 0:
        return luma, blue, red
    ui, li = _sample(mouth.upper_inner, column), _sample(mouth.lower_inner, column)
    gap = np.maximum(li - ui, 1e-3)
    v = (y - ui) / gap
    weight = parted * smooth_step(0.02, 0.12, v) * (1 - smooth_step(0.55, 0.85, v)) * smooth_step(0.02, 0.06, gap)
    sy, su, sv = planes(frame)
    half = (slice(box.top // 2, box.bottom // 2), slice(box.left // 2, box.right // 2))
    full = (slice(box.top, box.bottom), slice(box.left, box.right))
    double = lambda plane: cv2.resize(np.ascontiguousarray(plane[half]), (box.width, box.height)).astype(np.float32)  # noqa: E731
    return (
        luma + weight * (sy[full] - luma),
        blue + weight * (double(su) - blue),
        red + weight * (double(sv) - red),
    )
