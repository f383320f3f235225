"""Timed visemes to a smooth movement of the mouth, sampled at 25 frames per second.

The method is Cohen and Massaro's dominance blending (1993): every sound pulls at every part of the mouth with its own
strength, over a window that reaches a little ahead of the sound, and the pulls are averaged. Closures are then laid over
the blend, because lips that nearly meet on a p look like an m that failed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuserver.domain import FRAME_SECONDS, Floats, TimedViseme, Viseme
from gpuserver.musetalk.warp.mouth_shape import PARTS, Part

STEP = 0.005  # seconds between the points at which the pulls are averaged
REACH = 0.07  # seconds: a sound pulls this long before it begins and after it ends
PAUSE = 0.12  # seconds: a silence this long closes the lips; a shorter one is spoken through
PAUSE_ONSET = 0.03  # seconds from a pause's beginning until the lips are closed
CLOSED = 0.01  # seconds: lips that meet stay together at least as long, so that one frame shows it and a codec keeps it
CLOSING, OPENING = 0.04, 0.035  # seconds that lips need to meet and to part: a release is quicker
JAW_FOLLOWS = 1.0  # share of the jaw's drop that a p takes back
LOOK_AHEAD = FRAME_SECONDS / 2 + REACH + PAUSE  # of visemes that a frame's row depends on, beyond the frame's middle
LOOK_BACK = 0.5

# opening, jaw, width, rounding, lift, teeth, tongue, press (mouth_shape.Part)
_TARGETS: dict[Viseme, tuple[float, ...]] = {
    Viseme.SIL: (0.00, 0.00, 0.00, 0.0, 0.0, 0.0, 0.0, 0.0),
    Viseme.PP: (0.00, 0.02, 0.00, 0.1, 0.0, 0.3, 0.0, 1.0),
    Viseme.FF: (0.05, 0.02, 0.01, 0.0, 0.6, 0.8, 0.0, 0.0),
    Viseme.TH: (0.12, 0.05, 0.00, 0.0, 0.3, 0.6, 0.9, 0.0),
    Viseme.DD: (0.12, 0.05, 0.02, 0.0, 0.3, 0.7, 0.5, 0.0),
    Viseme.KK: (0.13, 0.075, 0.01, 0.0, 0.2, 0.5, 0.1, 0.0),
    Viseme.CH: (0.11, 0.03, -0.06, 0.5, 0.5, 0.9, 0.0, 0.0),
    Viseme.SS: (0.08, 0.02, 0.04, 0.0, 0.4, 1.0, 0.0, 0.0),
    Viseme.NN: (0.13, 0.06, 0.02, 0.0, 0.3, 0.6, 0.6, 0.0),
    Viseme.RR: (0.12, 0.05, -0.05, 0.4, 0.2, 0.5, 0.2, 0.0),
    Viseme.AA: (0.34, 0.215, -0.01, 0.0, 0.3, 0.6, 0.1, 0.0),
    Viseme.E: (0.24, 0.135, 0.03, 0.0, 0.4, 0.8, 0.1, 0.0),
    Viseme.IH: (0.15, 0.075, 0.05, 0.0, 0.4, 0.9, 0.1, 0.0),
    Viseme.OH: (0.255, 0.165, -0.08, 0.7, 0.1, 0.15, 0.1, 0.0),
    Viseme.OU: (0.125, 0.085, -0.12, 1.0, 0.0, 0.1, 0.0, 0.0),
}
# How strongly a sound insists on its opening (and jaw), and on its width and rounding. A k takes the lips of its vowel.
_STRENGTHS: dict[Viseme, tuple[float, float]] = {
    Viseme.SIL: (0.5, 0.3),
    Viseme.PP: (0.6, 0.2),
    Viseme.FF: (1.2, 0.4),
    Viseme.TH: (0.8, 0.3),
    Viseme.DD: (0.7, 0.2),
    Viseme.KK: (0.6, 0.1),
    Viseme.CH: (0.9, 0.9),
    Viseme.SS: (0.9, 0.4),
    Viseme.NN: (0.7, 0.2),
    Viseme.RR: (0.7, 0.6),
    Viseme.AA: (1.0, 0.6),
    Viseme.E: (1.0, 0.7),
    Viseme.IH: (0.9, 0.7),
    Viseme.OH: (1.0, 1.0),
    Viseme.OU: (1.0, 1.2),
}
_PAUSE_STRENGTH = 1.0
_INDEX = {viseme: i for i, viseme in enumerate(Viseme)}
_LIPS = (Part.WIDTH, Part.ROUNDING)  # parts with the second strength


def frame_rows(visemes: Sequence[TimedViseme], first: int, count: int) -> Floats:
    """Feature rows float32 [count, PARTS] of the frames from `first` on; frame i is at (i + 0.5) * 40 ms.

    visemes: in order and touching; before and after them the lips rest. The rows of a frame do not depend on visemes that
    begin more than LOOK_AHEAD after its middle or end more than LOOK_BACK before it.
    """
    middles = (np.arange(first, first + count) + 0.5) * FRAME_SECONDS
    if count == 0 or not visemes:
        return np.zeros((count, PARTS), np.float32)
    rows = _blend(visemes, middles)
    pressed, rested = np.zeros(count), np.zeros(count)
    for viseme in visemes:
        lasts = viseme.end - viseme.start
        if viseme.viseme is Viseme.PP:
            middle, half = (viseme.start + viseme.end) / 2, max(lasts / 4, CLOSED / 2)
            interval = _covering_a_frame(middle - half, middle + half)
            pressed = np.maximum(pressed, _closure(middles, *interval))
        elif viseme.viseme is Viseme.SIL and lasts >= PAUSE:
            interval = _covering_a_frame(viseme.start + PAUSE_ONSET, viseme.end - 0.02)
            rested = np.maximum(rested, _closure(middles, *interval))
    rows[:, Part.OPENING] *= 1 - np.maximum(pressed, rested)
    rows[:, Part.JAW] *= 1 - JAW_FOLLOWS * pressed
    rows[:, Part.PRESS] = pressed
    return rows.astype(np.float32)


def _covering_a_frame(start: float, end: float) -> tuple[float, float]:
    """The interval, stretched where needed to hold the middle of at least one frame: no closure falls between two frames."""
    middle = (np.floor((start + end) / 2 / FRAME_SECONDS) + 0.5) * FRAME_SECONDS
    return min(start, middle), max(end, middle)


def _closure(times: np.ndarray, start: float, end: float) -> np.ndarray:
    """1 while the lips are closed, falling to 0 around it as a half cosine."""
    before = np.clip((start - times) / CLOSING, 0, 1)
    after = np.clip((times - end) / OPENING, 0, 1)
    return np.asarray(np.cos(np.pi / 2 * np.maximum(before, after)) ** 2)


def _blend(visemes: Sequence[TimedViseme], middles: np.ndarray) -> np.ndarray:
    """Weighted mean of the targets around each time, [times, PARTS]."""
    targets = np.array([_TARGETS[v] for v in Viseme])
    strengths = np.array([_STRENGTHS[v] for v in Viseme])
    offsets = np.arange(-REACH, REACH + STEP / 2, STEP)
    window = np.cos(np.pi / 2 * offsets / (REACH + STEP)) ** 2
    starts = np.array([v.start for v in visemes])
    grid = middles[:, None] + offsets
    at = np.clip(np.searchsorted(starts, grid, "right") - 1, 0, len(visemes) - 1)
    index = np.array([_INDEX[v.viseme] for v in visemes])[at]
    pause = np.array([v.viseme is Viseme.SIL and v.end - v.start >= PAUSE for v in visemes])[at]
    outside = (grid < visemes[0].start) | (grid >= visemes[-1].end)
    index = np.where(outside, _INDEX[Viseme.SIL], index)
    pull = strengths[index]
    pull[pause | outside] = _PAUSE_STRENGTH
    pull *= window[None, :, None]
    pull /= pull.sum(1, keepdims=True)
    rows = np.einsum("ft,ftp->fp", pull[..., 0], targets[index])
    lips = list(_LIPS)
    rows[:, lips] = np.einsum("ft,ftp->fp", pull[..., 1], targets[index][..., lips])
    return np.asarray(rows)
