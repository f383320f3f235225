"""What Chromium received while a face said a text, and the figures that are taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from browser import SOUND_RATE, Recorder, Recording, rgb
from numpy.typing import NDArray
from playwright.sync_api import Page
from reference_speech import find, samples, shifted, speak

from bench.lips import expected_opening, lip_gaps
from gpuserver.domain import FRAME_SECONDS, TimedViseme
from gpuserver.musetalk.vision.faces import FaceFinder
from gpuserver.musetalk.vision.landmarks import INNER_LIPS, OUTER_LIPS

IDLE_MS = 2_000  # recorded before and after the speech
ATTEMPTS = 3  # a busy machine starves the browser; its own counters tell, and the face says the text again
STRETCH_ALLOWED = 0.02  # seconds
AUDIBLE = 0.01  # of full scale; silence through Opus stays a hundred times below
LAG_WINDOW = 0.2  # seconds to each side


class Visit(Protocol):
    """A page in a call: FacePage, or another one."""

    @property
    def page(self) -> Page: ...

    def settle(self) -> None:
        """Wait until the browser plays sound and picture in step."""
        ...

    def write(self, text: str, mode: str) -> None:
        """Send a text; with mode "say" to be spoken as it is."""
        ...

    def hear_out(self) -> None:
        """Wait until an answer has begun and ended."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the reference speech in the recorded sound: samples [first, last), and how alike they are, 0..1."""

    first: int
    last: int
    likeness: float
    spoken: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedAnswer:
    """The recording, where the speech is in it, and the visemes of the speech on the page's clock."""

    recording: Recording
    pieces: list[Piece]
    visemes: list[TimedViseme]

    @property
    def start(self) -> float:
        return self.recording.sound_start + self.pieces[0].first / SOUND_RATE

    @property
    def end(self) -> float:
        return self.recording.sound_start + self.pieces[-1].last / SOUND_RATE

    @property
    def before(self) -> NDArray[np.uint8]:
        """The pictures before the first word."""
        return self.recording.pictures_between(0, self.start - 0.2)

    @property
    def after(self) -> NDArray[np.uint8]:
        """The pictures after the last word and the fade of the mouth."""
        return self.recording.pictures_between(self.end + 0.3, np.inf)

    def lip_lag(self) -> tuple[float, float]:
        """Where the lips' opening follows the visemes best: lag (seconds; positive: lips late) and correlation."""
        times = self.recording.picture_times
        spoken = (times >= self.start) & (times < self.end)
        gaps, _ = lip_gaps(rgb(picture) for picture in self.recording.pictures[spoken])
        middles = times[spoken] + FRAME_SECONDS / 2 - self.start  # a picture is drawn for the middle of its 40 ms
        visemes = shifted(self.visemes, -self.start)
        lags = np.arange(-LAG_WINDOW, LAG_WINDOW + 1e-9, 0.005)
        correlations = [float(np.corrcoef(gaps, expected_opening(visemes, middles - lag))[0, 1]) for lag in lags]
        best = int(np.argmax(correlations))
        return float(lags[best]), correlations[best]


def receive_answer(visit: Visit, text: str) -> ReceivedAnswer:
    """Let the face of the call say the text, and measure what arrives."""
    recording = _record(visit, text)
    for _ in range(1, ATTEMPTS):
        if recording.stretched <= STRETCH_ALLOWED:
            break
        recording = min(recording, _record(visit, text), key=lambda each: each.stretched)
    pieces, visemes, after = [], [], 0
    for speech in speak(text):
        spoken = samples(speech)
        first, likeness = find(spoken, recording.sound[after:])
        first += after
        after = first + len(spoken) * 3 // 4  # the next piece comes later, even where this one ends in silence
        pieces.append(Piece(first, first + len(spoken), likeness, spoken))
        visemes += shifted(speech.visemes or (), recording.sound_start + first / SOUND_RATE)
    return ReceivedAnswer(recording, pieces, visemes)


def _record(visit: Visit, text: str) -> Recording:
    visit.settle()
    recorder = Recorder(visit.page)
    visit.page.wait_for_timeout(IDLE_MS)
    visit.write(text, "say")
    visit.hear_out()
    visit.page.wait_for_timeout(IDLE_MS)
    return recorder.stop()


# ---------------------------------------------------------------- sound


def level(sound: NDArray[np.float32]) -> float:
    """Loudness in dB relative to full scale."""
    return float(10 * np.log10(np.mean(sound.astype(np.float64) ** 2) + 1e-12))


def longest_gap(heard: NDArray[np.float32], spoken: NDArray[np.float32]) -> float:
    """Seconds for which nothing is heard although the voice speaks, in steps of 10 ms."""
    step = SOUND_RATE // 100
    steps = min(len(heard), len(spoken)) // step
    loud, quiet = (np.abs(x[: steps * step]).reshape(steps, step).max(axis=1) for x in (spoken, heard))
    missing = (loud > 3 * AUDIBLE) & (quiet < AUDIBLE)
    longest = run = 0
    for is_missing in missing:
        run = run + 1 if is_missing else 0
        longest = max(longest, run)
    return longest / 100


# ---------------------------------------------------------------- pictures


def pictures_of(video: Path) -> NDArray[np.uint8]:
    """All pictures of a file as uint8 [n, height * 3 / 2, width], I420."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])


def closest(picture: NDArray[np.uint8], source: NDArray[np.uint8]) -> int:
    """The index of the source picture that is most like this one."""
    rows = picture.shape[0] * 2 // 3
    differences = source[:, :rows:4, ::4].astype(np.int16) - picture[:rows:4, ::4].astype(np.int16)
    return int(np.argmin(np.mean(differences.astype(np.float32) ** 2, axis=(1, 2))))


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Likeness in dB; equal pictures have 138."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def mouths(picture: NDArray[np.uint8], source: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The rectangle of the source's mouth in both pictures, brightness only."""
    face = FaceFinder().find(rgb(source))
    assert face is not None
    points = face.landmarks[list(OUTER_LIPS + INNER_LIPS)]
    (left, top), (right, bottom) = points.min(axis=0).astype(int) - 4, points.max(axis=0).astype(int) + 4
    return picture[top:bottom, left:right], source[top:bottom, left:right]
