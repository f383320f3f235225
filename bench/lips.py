"""Measures lips: how well they follow the visemes that drive them, and whether they close on p, b and m.

    python bench/lips.py [clip …] [--text TEXT] [--keep FOLDER]

For each clip the engine makes the face say the text, the film is encoded as an MP4 (H.264, crf 18) and decoded again, and the
lips are found in the decoded pictures with the face mesh. Nothing is read from the engine. One row per clip; faces whose mouth
is narrower than 48 pixels stand in rows of their own, after the others.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import FRAME_SECONDS, TimedViseme, Viseme
from gpuserver.musetalk.faces import FaceFinder
from gpuserver.musetalk.landmarks import LOWER_LIP_CENTRE, UPPER_LIP_CENTRE, eye_distance, mouth_width

TEXT = (
    "Good morning. Bob and Mary make a map of the moon. Please bring my paper to the new room. "
    "Peter Piper picked a peck of pickled peppers, maybe by the bamboo pump."
)
LAG_WINDOW = 0.2  # seconds to each side in which the best lag is looked for
CLOSED = 0.15  # of the clip's largest gap
SMALL_MOUTH = 48  # pixels

# How far each sound opens the lips, 0..1, by phonetics and not by the engine's own table.
OPENNESS = {
    Viseme.SIL: 0.0, Viseme.PP: 0.0, Viseme.FF: 0.1, Viseme.TH: 0.3, Viseme.DD: 0.25, Viseme.KK: 0.4, Viseme.CH: 0.2, Viseme.SS: 0.15,
    Viseme.NN: 0.3, Viseme.RR: 0.3, Viseme.AA: 1.0, Viseme.E: 0.7, Viseme.IH: 0.45, Viseme.OH: 0.75, Viseme.OU: 0.35,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LipFigures:
    """lag: seconds, positive when the lips are late. closed of closures: p, b, m on which the lips met."""

    frames: int
    mouth: float  # median width in pixels
    lag: float
    correlation: float
    correlation_at_once: float  # at lag 0
    closed: int
    closures: int
    largest: float  # gap in mouth widths


def lip_gaps(pictures: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], float]:
    """The gap between the inner lips in each RGB picture, in median mouth widths (NaN where no face), and that width in pixels."""
    finder = FaceFinder()
    previous, gaps, widths = None, [], []
    for picture in pictures:
        face = finder.find(picture, previous)
        previous = None if face is None else face.landmarks
        if face is None:
            gaps.append(np.nan)
            continue
        gap = np.linalg.norm(face.landmarks[LOWER_LIP_CENTRE] - face.landmarks[UPPER_LIP_CENTRE])
        gaps.append(float(gap) / eye_distance(face.landmarks))  # the eyes do not move with the lips, the corners do
        widths.append((mouth_width(face.landmarks), eye_distance(face.landmarks)))
    width, eyes = np.median(np.array(widths), axis=0)
    return np.array(gaps) * eyes / width, float(width)


def expected_opening(visemes: Sequence[TimedViseme], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the visemes ask for at each time, 0..1, each sound's step rounded over 120 ms as lips do."""
    grid = np.arange(-0.5, visemes[-1].end + 0.5, 0.005)
    steps = np.zeros(len(grid))
    for viseme in visemes:
        steps[(grid >= viseme.start) & (grid < viseme.end)] = OPENNESS[viseme.viseme]
    window = np.hanning(25)
    return np.interp(times, grid, np.convolve(steps, window / window.sum(), "same"))


def compare(gaps: NDArray[np.float64], width: float, visemes: Sequence[TimedViseme], start: float = 0.0) -> LipFigures:
    """Figures of a clip. gaps: per 40 ms frame, shown from start + i * 40 ms on the visemes' clock; each is taken at its middle."""
    times = start + (np.arange(len(gaps)) + 0.5) * FRAME_SECONDS
    seen = np.isfinite(gaps) & (times > 0) & (times < visemes[-1].end)
    lags = np.arange(-LAG_WINDOW, LAG_WINDOW + 1e-9, 0.01)
    correlations = [float(np.corrcoef(gaps[seen], expected_opening(visemes, times[seen] - lag))[0, 1]) for lag in lags]
    best = int(np.argmax(correlations))
    largest = float(np.nanmax(gaps[seen]))
    closures = [v for v in visemes if v.viseme is Viseme.PP]
    shown = [gaps[(times + FRAME_SECONDS / 2 > v.start) & (times - FRAME_SECONDS / 2 < v.end)] for v in closures]
    closed = sum(bool(len(part)) and float(np.nanmin(part)) < CLOSED * largest for part in shown)
    return LipFigures(
        len(gaps), width, float(lags[best]), correlations[best], correlations[len(lags) // 2], closed, len(closures), largest
    )


def decoded(film: Path) -> Iterator[NDArray[np.uint8]]:
    """The RGB pictures of a video file."""
    import av

    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
