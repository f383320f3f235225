"""Tells a covered mouth from a moving one.

The face mesh places lips on a hand as surely as on lips, so its points and its score do not help. What helps is that a face
looks like itself: at the same mesh points the same person shows the same fine structure in the whole clip, whether the mouth
smiles or speaks, and a hand does not. Limit: what covers the mouth for more than half of a clip is taken for the face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats
from gpuserver.musetalk.vision.landmarks import MOUTH_AREA, roll

Look = Floats  # [len(MOUTH_AREA), 3], Lab units

_SIDE = 96  # pixels of the levelled face; small enough that the grain of the picture does not count
_FACE_PART = 1 / 1.1  # of that side
# Structure between these two sizes is looked at, so that grain, light and shade do not count.
_FINE = 1.5  # pixels of 96, standard deviation
_COARSE = (17, 17)  # pixels of 96, a box; twice it is close to a Gaussian of 6.9
_LIGHTNESS = 0.5  # weight of L against a and b: hands differ from lips in colour, expressions mostly in lightness

# Measured on three real clips (smiles, open mouths, turned heads, a hand): a free mouth differs from the clip's usual look at
# 0 to 29% of the points, a covered one at 37 to 63%. A hand that only comes near (15%) is caught by the margin.
_DIFFERENT = 6.0  # Lab units, plus what the grain of the video adds:
_GRAIN = 1.4  # times the usual change from frame to frame, which is 0.6-1.2 in a clean video and 2.5 in a poor one
_COVERED = 0.33
_NEARLY_COVERED = 0.24
_MARGIN = 3  # frames before and after, in which the hand is on its way and blurred


def look(rgb: NDArray[np.uint8], landmarks: Floats) -> Look:
    """The fine structure of the mouth's area of a face, at the mesh's own points. rgb: [h, w, 3]; landmarks: [468, 2]."""
    import cv2

    matrix = _level(landmarks)
    face = cv2.warpAffine(rgb, matrix, (_SIDE, _SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(face, cv2.COLOR_RGB2LAB).astype(np.float32)
    structure = cv2.GaussianBlur(lab, (0, 0), _FINE) - cv2.blur(cv2.blur(lab, _COARSE), _COARSE)
    at = landmarks[list(MOUTH_AREA)] @ matrix[:, :2].T + matrix[:, 2]
    x, y = np.clip(np.rint(at), 0, _SIDE - 1).astype(int).T
    return np.asarray(structure[y, x] * np.array([_LIGHTNESS, 1, 1]), np.float32)


def covered(looks: Sequence[Look | None]) -> NDArray[np.bool_]:
    """For every frame of a clip whether something covers the mouth; None (no face) counts as not covered."""
    result = np.zeros(len(looks), np.bool_)
    known = [index for index, seen in enumerate(looks) if seen is not None]
    if not known:
        return result
    stack = np.stack([seen for seen in looks if seen is not None])
    usual = np.median(stack, axis=0)
    changes = np.linalg.norm(np.diff(stack, axis=0), axis=2).mean(axis=1)
    changes = changes[changes > 0]  # a picture that is shown again does not count
    threshold = _DIFFERENT + _GRAIN * (float(np.median(changes)) if len(changes) else 0.0)
    different = np.zeros(len(looks))
    different[known] = (np.linalg.norm(stack - usual, axis=2) > threshold).mean(axis=1)
    return _widened(different > _COVERED, different > _NEARLY_COVERED)


def _widened(core: NDArray[np.bool_], nearly: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`core` grown along `nearly` in both directions of time (hysteresis), then by the margin."""
    grown = core.copy()
    for order in (range(1, len(grown)), range(len(grown) - 2, -1, -1)):
        back = -1 if order.step > 0 else 1
        for index in order:
            grown[index] |= nearly[index] and grown[index + back]
    kernel = np.ones(2 * _MARGIN + 1)
    return np.asarray(np.convolve(grown, kernel)[_MARGIN : _MARGIN + len(grown)] > 0.5)


def _level(landmarks: Floats) -> NDArray[np.float64]:
    """The 2x3 matrix that turns the face upright and fits it into the square."""
    angle, centre = roll(landmarks), landmarks.mean(axis=0)
    scale = _SIDE * _FACE_PART / max(float(np.ptp(landmarks, axis=0).max()), 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cos, sin, 0], [-sin, cos, 0]])
    matrix[:, 2] = _SIDE / 2 - matrix[:, :2] @ centre
    return matrix
