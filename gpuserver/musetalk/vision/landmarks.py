"""The 468 points of the face mesh: which index is what, and what can be measured from them. numpy only.

Left and right are those of the picture, not of the person. Indices: MediaPipe's canonical face model.
"""

from __future__ import annotations

import numpy as np

from gpuserver.domain import Floats

COUNT = 468

# From the left corner of the mouth to the right one, both ends included.
UPPER_OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LOWER_OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_LIPS = UPPER_OUTER_LIP + LOWER_OUTER_LIP[-2:0:-1]  # closed contours, clockwise
INNER_LIPS = UPPER_INNER_LIP + LOWER_INNER_LIP[-2:0:-1]

LEFT_CORNER, RIGHT_CORNER = 61, 291
UPPER_LIP_CENTRE, LOWER_LIP_CENTRE = 13, 14  # of the inner lips
LEFT_EYE_OUTER, LEFT_EYE_INNER, RIGHT_EYE_INNER, RIGHT_EYE_OUTER = 33, 133, 362, 263
NOSE_TIP, NOSE_BASE, CHIN, FOREHEAD = 1, 2, 152, 10
LEFT_CHEEK, RIGHT_CHEEK = 234, 454  # in front of the ears

LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)  # left to right
# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # clockwise from the top
# Points that the lips and the jaw do not move: they hold the head's position while someone talks.
STEADY = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 98, 327, 127, 356, 10, 67, 297)
# Around the mouth, lips included, from the nose's base to the chin; without the inner lips, which show teeth.
MOUTH_AREA = (
    0, 11, 12, 15, 16, 17, 18, 32, 37, 38, 39, 40, 41, 42, 43, 57, 61, 62, 72, 73, 74, 76, 77, 83, 84, 85, 86, 89, 90, 91,
    92, 96, 97, 106, 140, 146, 164, 165, 167, 169, 170, 171, 175, 179, 180, 181, 182, 183, 184, 185, 186, 194, 199, 200,
    201, 202, 204, 206, 208, 210, 211, 212, 216, 262, 267, 268, 269, 270, 271, 272, 273, 287, 291, 292, 302, 303, 304, 306,
    307, 313, 314, 315, 316, 319, 320, 321, 322, 325, 335, 369, 375, 391, 393, 395, 396, 403, 404, 405, 406, 407, 408, 409,
    410, 418, 421, 422, 424, 426, 428, 431,
)
# fmt: on

# The three inner pairs around the middle: the lips of a smile are parted at the sides first, the middle alone would miss it.
_GAP_UPPER, _GAP_LOWER = (82, 13, 312), (87, 14, 317)


def mouth_width(landmarks: Floats) -> float:
    """The distance of the mouth's corners, in pixels. landmarks: [468, 2]."""
    return float(np.linalg.norm(landmarks[RIGHT_CORNER] - landmarks[LEFT_CORNER]))


def mouth_opening(landmarks: Floats) -> float:
    """The gap between the inner lips, mean of three places, in units of the mouth's width; 0 is closed. landmarks: [468, 2]."""
    gaps = np.linalg.norm(landmarks[list(_GAP_LOWER)] - landmarks[list(_GAP_UPPER)], axis=1)
    return float(gaps.mean() / max(mouth_width(landmarks), 1e-6))


def eye_opening(landmarks: Floats) -> float:
    """Height / width of the eyes, the mean of both; below about 0.15 they are closed. landmarks: [468, 2]."""
    upper_left, lower_right = landmarks[[159, 386, LEFT_EYE_OUTER, RIGHT_EYE_INNER]], landmarks[[145, 374, LEFT_EYE_INNER, RIGHT_EYE_OUTER]]
    left_height, right_height, left_width, right_width = np.linalg.norm(lower_right - upper_left, axis=1)
    return float(left_height / max(left_width, 1e-6) + right_height / max(right_width, 1e-6)) / 2


def eye_distance(landmarks: Floats) -> float:
    """The distance of the outer corners of the eyes, in pixels. landmarks: [468, 2]."""
    return float(np.linalg.norm(landmarks[RIGHT_EYE_OUTER] - landmarks[LEFT_EYE_OUTER]))


def roll(landmarks: Floats) -> float:
    """How far the head is tilted in the picture's plane, in radians; 0 is upright, positive is clockwise. landmarks: [468, 2]."""
    x, y = landmarks[RIGHT_EYE_OUTER] - landmarks[LEFT_EYE_OUTER]
    return float(np.arctan2(y, x))


def turn(landmarks: Floats) -> float:
    """How far the face is turned away: 0 looks into the camera, +-1 is a profile (positive: towards the picture's right).

    It is where the nose's tip lies between the two cheeks, along the line of the eyes. landmarks: [468, 2].
    """
    angle = roll(landmarks)
    along = np.array([np.cos(angle), np.sin(angle)])
    nose, left, right = (float(landmarks[i] @ along) for i in (NOSE_TIP, LEFT_CHEEK, RIGHT_CHEEK))
    return (2 * nose - left - right) / max(right - left, 1e-6)
