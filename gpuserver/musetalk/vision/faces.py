"""Finds one face in a picture: BlazeFace for the first look, FaceMesh (468 points) for the shape, tracking in between.

The models are MediaPipe's (assets/LICENSE.md); LiteRT runs them on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Floats
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.litert import Network

ASSETS = Path(__file__).parents[1] / "assets"
DETECTOR = ASSETS / "face_detection_short_range.tflite"
MESH = ASSETS / "face_landmark.tflite"

Rgb = NDArray[np.uint8]

_DETECTOR_SIDE = 128  # pixels, the detector's input
_MESH_SIDE = 192  # pixels, the mesh's input
_CROP_SCALE = 1.5  # side of the mesh's crop / larger side of the face box (MediaPipe face_landmark_front_cpu.pbtxt)
_DETECTION_SCORE = 0.5
_PRESENCE = 0.5
_PLACES = [0, 2, 3, 4, 5, 6, 7]  # of a detection's eight pairs, those that are places; 1 is the size
_CENTRAL = 0.5  # how much it counts against a face that it is at the picture's side
_DETECTED_PART = 0.8  # the detector's box leaves out the forehead: its side / the larger side of the mesh's box
_SIMILAR_SIZE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """landmarks: float32 [468, 2], pixels of the picture. presence: 0..1, how sure the mesh is that this is a face.
    box: around all landmarks, inside the picture."""

    landmarks: Floats
    presence: float
    box: Box


@dataclass(frozen=True, slots=True)
class _Region:
    """A square of the picture, turned by `angle` (radians, clockwise) about its centre; pixels."""

    x: float
    y: float
    side: float
    angle: float


class FaceFinder:
    """Holds the two networks. One instance per thread."""

    def __init__(self, threads: int = 1):
        self._detector = Network(DETECTOR, threads)
        self._mesh = Network(MESH, threads)
        self._anchors = _anchors()

    def find(self, rgb: Rgb, previous: Floats | None = None, *, thorough: bool = True) -> Face | None:
        """The face of the picture uint8 [h, w, 3], or None.

        previous: landmarks [468, 2] of the same face a moment ago; then only the mesh runs (3 ms instead of 7), and the
        detector looks again when the face is not where it was. thorough: look for small faces, too (0.1 s where there is none).
        """
        if previous is not None:
            face = self._shape(rgb, _region_of_landmarks(previous))
            if face is not None:
                return face
        region = self._detect(rgb, thorough=thorough)
        if region is None:
            return None
        face = self._shape(rgb, region)
        # The detector's box is coarse: a second look, placed by the first shape, gives the points that tracking would give.
        return None if face is None else self._shape(rgb, _region_of_landmarks(face.landmarks))

    def _shape(self, rgb: Rgb, region: _Region) -> Face | None:
        import cv2

        to_picture = _crop_matrix(region)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(rgb, to_picture, (_MESH_SIDE, _MESH_SIDE), flags=flags)
        shape, logit = self._mesh(np.asarray(crop[None] / np.float32(255), np.float32))
        presence = _sigmoid(float(logit.reshape(-1)[0]))
        if presence < _PRESENCE:
            return None
        flat = shape.reshape(points.COUNT, 3)[:, :2]
        landmarks = (flat @ to_picture[:, :2].T + to_picture[:, 2]).astype(np.float32)
        box = _box_around(landmarks, rgb.shape[1], rgb.shape[0])
        return Face(landmarks, presence, box) if box.width > 0 and box.height > 0 else None

    def _detect(self, rgb: Rgb, *, thorough: bool) -> _Region | None:
        """The most face-like region: of the whole picture, else of its overlapping squares (they show small faces larger)."""
        height, width = rgb.shape[:2]
        found = self._detect_in(rgb, 0, 0)
        if found is not None:
            return found[1]
        if not thorough:
            return None
        short = min(height, width)
        candidates = [
            found
            for side in (short, short * 2 // 3, short // 3)
            if side > 0  # of a picture of one or two pixels nothing is left
            for top, left in _tiles(height, width, side)
            if (found := self._detect_in(rgb[top : top + side, left : left + side], left, top)) is not None
        ]
        return max(candidates, key=lambda found: found[0])[1] if candidates else None

    def others(self, rgb: Rgb, face: Face) -> int:
        """How many further faces of about the same size the picture shows."""
        found = self._candidates(rgb)
        if found is None:
            return 0
        boxes, weights = found
        count, own = 0, max(face.box.width, face.box.height) * _DETECTED_PART
        while len(boxes):  # non-maximum suppression: the surest one, then those away from it
            best = boxes[int(np.argmax(weights))]
            centre, side = best[0], float(best[1].mean())
            inside = face.box.left <= centre[0] <= face.box.right and face.box.top <= centre[1] <= face.box.bottom
            count += not inside and side > _SIMILAR_SIZE * own
            away = np.linalg.norm(boxes[:, 0] - centre, axis=1) > 0.5 * side
            boxes, weights = boxes[away], weights[away]
        return count

    def is_upside_down(self, rgb: Rgb) -> bool:
        """Whether the picture shows more of a face when it is turned by half. The mesh alone fits an upright shape into such a face.

        Measured on portraits and webcams: the detector is 0.88 to 0.98 sure of an upright face, 0.54 to 0.80 of one upside down.
        """
        sure, turned = (self._candidates(np.ascontiguousarray(picture)) for picture in (rgb, rgb[::-1, ::-1]))
        return turned is not None and (sure is None or float(turned[1].max()) > float(sure[1].max()))

    def _detect_in(self, rgb: Rgb, left: int, top: int) -> tuple[float, _Region] | None:
        """Score and region (in pixels of the whole picture) of the best face in a part of the picture that begins at left, top."""
        found = self._candidates(rgb)
        if found is None:
            return None
        boxes, weights = found
        # Large faces win over small ones in the background, central ones over those at the side: the score alone hardly tells them apart.
        size = np.array(rgb.shape[1::-1], np.float32)
        aside = np.linalg.norm(boxes[:, 0] / size - 0.5, axis=1)
        best = int(np.argmax(weights * boxes[:, 1].mean(axis=1) * (1 - _CENTRAL * aside)))
        near = np.linalg.norm(boxes[:, 0] - boxes[best, 0], axis=1) < 0.3 * boxes[best, 1].mean()
        mean = np.average(boxes[near], axis=0, weights=weights[near])
        eyes = mean[3] - mean[2]
        x, y = mean[0] + (left, top)
        return float(weights[best]), _Region(float(x), float(y), float(mean[1].max()) * _CROP_SCALE, math.atan2(eyes[1], eyes[0]))

    def _candidates(self, rgb: Rgb) -> tuple[Floats, Floats] | None:
        """What may be a face: [n, 8, 2] in pixels (centre, size, right eye, left eye, nose, mouth, right ear, left ear), scores [n]."""
        square, scale, pad_x, pad_y = _letterbox(rgb)
        regressors, logits = self._detector(square[None])
        scores = _sigmoid_all(logits.reshape(-1))
        candidates = np.flatnonzero(scores > _DETECTION_SCORE)
        if not len(candidates):
            return None
        boxes = regressors.reshape(-1, 8, 2)[candidates]
        boxes[:, _PLACES] += self._anchors[candidates][:, None] - np.array([pad_x, pad_y], np.float32)
        return np.asarray(boxes / np.float32(scale)), scores[candidates]


def _anchors() -> Floats:
    """Anchor centres in pixels of 128, [896, 2]: a 16x16 grid with 2 per cell, then an 8x8 grid with 6 per cell."""
    grids = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.mgrid[0:cells, 0:cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * (_DETECTOR_SIDE / cells)
        grids.append(np.repeat(centres, per_cell, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _letterbox(rgb: Rgb) -> tuple[Floats, float, int, int]:
    """The picture fitted into 128x128, values -1..1; with the scale and the padding at the left and the top."""
    import cv2

    height, width = rgb.shape[:2]
    scale = _DETECTOR_SIDE / max(height, width)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    pad_x, pad_y = (_DETECTOR_SIDE - inner_width) // 2, (_DETECTOR_SIDE - inner_height) // 2
    square = np.zeros((_DETECTOR_SIDE, _DETECTOR_SIDE, 3), np.float32)
    square[pad_y : pad_y + inner_height, pad_x : pad_x + inner_width] = cv2.resize(
        rgb, (inner_width, inner_height), interpolation=cv2.INTER_AREA
    )
    return square / np.float32(127.5) - 1, scale, pad_x, pad_y


def _tiles(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Top left corners (top, left) of squares that cover the picture and overlap by at least a third of their side."""
    step = max(1, side * 2 // 3)

    def starts(length: int) -> list[int]:
        return [*range(0, length - side, step), length - side]

    return [(top, left) for top in starts(height) for left in starts(width)]


def _region_of_landmarks(landmarks: Floats) -> _Region:
    angle = points.roll(landmarks)
    cos, sin = math.cos(angle), math.sin(angle)
    upright = landmarks @ np.array([[cos, -sin], [sin, cos]])  # turned back by the angle
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = (low + high) / 2
    return _Region(float(cos * x - sin * y), float(sin * x + cos * y), float((high - low).max()) * _CROP_SCALE, angle)


def _crop_matrix(region: _Region) -> NDArray[np.float64]:
    """The 2x3 matrix from pixels of the mesh's crop to pixels of the picture."""
    scale = region.side / _MESH_SIDE
    cos, sin = math.cos(region.angle) * scale, math.sin(region.angle) * scale
    half = _MESH_SIDE / 2
    return np.array([[cos, -sin, region.x - (cos - sin) * half], [sin, cos, region.y - (sin + cos) * half]])


def _box_around(landmarks: Floats, width: int, height: int) -> Box:
    left, top = np.floor(landmarks.min(axis=0)).astype(int)
    right, bottom = np.ceil(landmarks.max(axis=0)).astype(int)
    return Box(max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom)))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


def _sigmoid_all(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)
