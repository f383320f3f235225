"""One face through a whole clip: where it is in every frame, which frames can talk, and its points without jitter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.face_view import FaceView, face_view
from gpuserver.musetalk.vision.faces import Face, FaceFinder
from gpuserver.musetalk.vision.occlusion import Look, covered, look

MIN_MOUTH = 12  # pixels of width; below that there is nothing to draw on
MAX_TURN = 0.7  # landmarks.turn(): about 35 degrees
MAX_JUMP = 0.35  # eye distances per frame; a head does not move faster, a cut does
MAX_CHANGE = 40.0  # mean change of the picture per frame, of 255: a cut to another scene

_SEARCH_EVERY = 12  # frames: small faces are looked for this often while there is none
_VIEW_EVERY = 10  # frames: how well the face is shown changes slowly
_THUMBNAIL = 32  # pixels, to see cuts


@dataclass(frozen=True, slots=True)
class Run:
    """Frames start … stop - 1."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Findings:
    """What the clip shows, counted in frames. run: the longest unbroken part that can be used; None if there is none.

    with_others: frames with another face of similar size. brightness, sharpness: medians of FaceView's; 0 without a face.
    upside_down: whether the face is, most of the time.
    """

    frames: int
    without_face: int
    turned_away: int
    covered: int
    too_small: int
    with_others: int
    brightness: float
    sharpness: float
    run: Run | None
    upside_down: bool = False


class FaceTrack:
    """Follows the face from picture to picture: see() every frame in order, then judge() and faces()."""

    def __init__(self, finder: FaceFinder):
        self._finder = finder
        self._faces: list[Face | None] = []
        self._looks: list[Look | None] = []
        self._views: list[FaceView | None] = []
        self._cuts: list[bool] = []  # whether the scene changes right before the frame
        self._thumbnail: Floats | None = None
        self._missed = 0  # frames in a row without a face

    def see(self, rgb: NDArray[np.uint8]) -> None:
        """Take the next picture, uint8 [h, w, 3]."""
        previous = self._faces[-1] if self._faces else None
        cut = self._is_cut(rgb)
        known = previous.landmarks if previous is not None and not cut else None
        face = self._finder.find(rgb, known, thorough=self._missed % _SEARCH_EVERY == 0)
        self._missed = 0 if face is not None else self._missed + 1
        jumped = face is not None and previous is not None and _distance(previous.landmarks, face.landmarks) > MAX_JUMP
        self._faces.append(face)
        self._looks.append(None if face is None else look(rgb, face.landmarks))
        self._views.append(self._view(rgb, face))
        self._cuts.append(cut or jumped)

    def see_again(self) -> None:
        """The last picture is shown for another frame."""
        self._faces.append(self._faces[-1])
        self._looks.append(self._looks[-1])
        self._views.append(self._views[-1])
        self._cuts.append(False)

    def judge(self, width: int, height: int) -> Findings:
        """Which frames can be used. width, height: of the pictures."""
        missing = np.array([face is None or not _inside(face, width, height) for face in self._faces], np.bool_)
        turned = np.array([face is not None and abs(points.turn(face.landmarks)) > MAX_TURN for face in self._faces], np.bool_)
        small = np.array([face is not None and points.mouth_width(face.landmarks) < MIN_MOUTH for face in self._faces], np.bool_)
        hidden = covered(self._looks)
        run = _longest_run(~(missing | turned | small | hidden), self._cuts)
        counts = (int(part.sum()) for part in (missing, turned & ~missing, hidden & ~missing & ~turned, small & ~missing))
        without_face, turned_away, hidden_count, too_small = counts
        views = [view for view in self._views if view is not None]
        return Findings(
            frames=len(self._faces),
            without_face=without_face,
            turned_away=turned_away,
            covered=hidden_count,
            too_small=too_small,
            with_others=sum(view.others > 0 for view in views),
            brightness=float(np.median([view.brightness for view in views])) if views else 0.0,
            sharpness=float(np.median([view.sharpness for view in views])) if views else 0.0,
            run=run,
            upside_down=2 * sum(view.upside_down for view in views) > len(views),
        )

    def seen(self) -> list[Face]:
        """The faces of all frames that have one."""
        return [face for face in self._faces if face is not None]

    def faces(self, run: Run) -> list[Face]:
        """The faces of a run in which every frame has one, with smooth landmarks."""
        faces = [face for face in self._faces[run.start : run.stop] if face is not None]
        if len(faces) != run.length:
            raise ValueError("the run has frames without a face")
        smooth = smoothed(np.stack([face.landmarks for face in faces]))
        return [Face(landmarks, face.presence, face.box) for landmarks, face in zip(smooth, faces, strict=True)]

    def _view(self, rgb: NDArray[np.uint8], face: Face | None) -> FaceView | None:
        """How the face is shown; what was seen a moment ago stands for the frames after it."""
        if face is None:
            return None
        last = self._views[-1] if self._views else None
        due = last is None or len(self._faces) % _VIEW_EVERY == 0
        return face_view(self._finder, rgb, face) if due else last

    def _is_cut(self, rgb: NDArray[np.uint8]) -> bool:
        import cv2

        step = max(1, min(rgb.shape[:2]) // (2 * _THUMBNAIL))
        small = cv2.resize(np.ascontiguousarray(rgb[::step, ::step]), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        before, self._thumbnail = self._thumbnail, np.asarray(small)
        return before is not None and float(np.abs(small - before).mean()) > MAX_CHANGE


def smoothed(landmarks: Floats) -> Floats:
    """Landmarks [n, 468, 2] without the mesh's jitter; neither late nor early.

    A bilateral filter over time (Tomasi and Manduchi 1998): a mean over +-4 frames, weighted by closeness in time and in place,
    point by point. What moves by more than the jitter leaves the mean at once, so fast lips and heads keep their speed and height.
    """
    reach, spread = 4, 2.0  # frames
    jitter = 0.012 * float(np.median([points.eye_distance(shape) for shape in landmarks]))  # pixels; measured: 0.3-0.8% of the eye distance
    total, weights = landmarks.astype(np.float64), np.ones((*landmarks.shape[:2], 1))
    for shift in range(1, min(reach, len(landmarks) - 1) + 1):
        later, earlier = landmarks[shift:], landmarks[:-shift]
        apart = ((later - earlier) ** 2).sum(axis=2, keepdims=True)
        weight = np.exp(-apart / (2 * jitter**2) - shift**2 / (2 * spread**2))
        total[:-shift] += weight * later
        total[shift:] += weight * earlier
        weights[:-shift] += weight
        weights[shift:] += weight
    return np.asarray(total / weights, np.float32)


def _longest_run(usable: NDArray[np.bool_], cuts: list[bool]) -> Run | None:
    best: Run | None = None
    start: int | None = None
    for index in range(len(usable) + 1):
        good = index < len(usable) and bool(usable[index])
        if start is not None and (not good or cuts[index]):
            if best is None or index - start > best.length:
                best = Run(start, index)
            start = None
        if good and start is None:
            start = index
    return best


def _distance(before: Floats, after: Floats) -> float:
    """How far the steady points moved, in eye distances."""
    steady = list(points.STEADY)
    moved = np.linalg.norm(after[steady] - before[steady], axis=1).mean()
    return float(moved) / max(points.eye_distance(after), 1.0)


def _inside(face: Face, width: int, height: int) -> bool:
    """Whether the mouth lies within the picture with a third of its width around it. The chin may be outside, as in a close-up."""
    lips, border = face.landmarks[list(points.OUTER_LIPS)], points.mouth_width(face.landmarks) / 3
    return bool((lips >= border).all() and (lips < (width - border, height - border)).all())
