"""Hears one sentence for MuseTalk: sound at any rate becomes a row of Whisper's hidden states for every picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from gpuserver.domain import FPS, Floats, Pcm, Speech
from gpuserver.musetalk.neural import whisper_features as whisper

_KEPT_SECONDS = 15  # of what was heard, when the window of 30 s is full
_FEWEST_ROWS = 5  # per call of Whisper, but for the sentence's first and last: 200 ms; a call costs as much for 1 as for 750
_SILENT_STEP = 20  # where the row of rest begins: Whisper hears the beginning of its 30 s as a beginning


class Ear(Protocol):
    """Whisper's encoder on its device; called from any thread, by several at once."""

    @property
    def width(self) -> int:
        """Of a hidden state: 384 for whisper-tiny."""
        ...

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        """Hidden states float32 [end - begin, 5, width] of a log-mel spectrogram [80, 3000]. Raises DeviceLost, DeviceFull."""
        ...


class MuseTalkListener:
    """Implements domain.Listener for one sentence. Rows: float32 [n, 50, width], read-only views of the states that they share.

    A row needs 132.5 ms of sound after its picture's beginning. Whisper looks at all of its 30 s, silence where there is no sound:
    what is heard in one piece gets the rows that upstream computes for it, and every later piece is heard with all that came
    before. A sentence of more than 30 s is heard in windows that overlap by 15 s. Before the sentence and after it are zeros.
    """

    blocking = True  # hear() and finish() wait for a network

    def __init__(self, ear: Ear):
        self._ear = ear
        self._rate = 0
        self._samples = 0  # heard of the sentence
        self._window: Pcm = np.zeros(0, np.int16)
        self._window_begin = 0  # seconds
        self._given = 0  # rows
        self._steps = self._zeros(whisper.STEPS_BEFORE)  # of the rows to come
        self._known = 0  # the sentence's steps that are final
        self._ending: Floats | None = self._zeros(0)  # the steps from _known on, if the sentence is over; None: not listened to yet

    def hear(self, speech: Speech) -> Floats:
        """Rows of the pictures whose look-ahead is complete.

        Raises ValueError when the rate changes within the sentence, DeviceLost, DeviceFull.
        """
        self._rate = self._rate or speech.sample_rate
        if self._rate != speech.sample_rate:
            raise ValueError(f"the sample rate changes from {self._rate} to {speech.sample_rate} Hz within a sentence")
        for pcm in self._fitting(speech.pcm):
            self._window = np.concatenate([self._window, pcm])
            self._samples += len(pcm)
            self._ending = None
            if self._worthwhile():
                self._listen()
        return self._rows((self._known - whisper.STEPS_AFTER) // whisper.STEPS_PER_PICTURE)

    def finish(self) -> Floats:
        """The remaining rows. Raises DeviceLost, DeviceFull. Calls Whisper only where the last pieces were too short to be listened to."""
        if self._ending is None:
            self._listen()
        pictures = -(-self._samples * FPS // self._rate) if self._rate else 0
        ending = self._zeros(0) if self._ending is None else self._ending
        missing = pictures * whisper.STEPS_PER_PICTURE + whisper.STEPS_AFTER - self._known - len(ending)
        self._steps = np.concatenate([self._steps, ending, self._zeros(max(missing, 0))])
        return self._rows(pictures)

    def _fitting(self, pcm: Pcm) -> Iterator[Pcm]:
        """The sound in pieces for which the window has room; of a full one the first 15 s are forgotten."""
        while len(pcm):
            if len(self._window) == whisper.SEGMENT_SECONDS * self._rate:
                self._window = self._window[-_KEPT_SECONDS * self._rate :]
                self._window_begin += whisper.SEGMENT_SECONDS - _KEPT_SECONDS
            room = whisper.SEGMENT_SECONDS * self._rate - len(self._window)
            yield pcm[:room]
            pcm = pcm[room:]

    def _worthwhile(self) -> bool:
        """Whether a call of Whisper gives the first row, or five more, or the window is full."""
        rows = (self._final_steps() - whisper.STEPS_AFTER) // whisper.STEPS_PER_PICTURE
        fewest = _FEWEST_ROWS if self._given else 1
        return rows >= self._given + fewest or len(self._window) == whisper.SEGMENT_SECONDS * self._rate

    def _final_steps(self) -> int:
        """How many of the sentence's steps have all their sound in the window."""
        samples = len(self._window) * whisper.SAMPLE_RATE // self._rate - whisper.STEP_LOOK_AHEAD
        return self._window_begin * whisper.STEPS_PER_SECOND + max(samples // whisper.STEP + 1, 0)

    def _listen(self) -> None:
        """Whisper hears the window; its new steps are kept."""
        sound = at_16_khz(self._window, self._rate)
        first = self._window_begin * whisper.STEPS_PER_SECOND
        known, end = max(self._final_steps(), self._known), first + len(sound) // whisper.STEP
        steps = self._ear.steps(whisper.log_mel(sound), self._known - first, max(end, known) - first)
        self._steps = np.concatenate([self._steps, steps[: known - self._known]])
        self._ending = steps[known - self._known :]
        self._known = known

    def _rows(self, end: int) -> Floats:
        """The rows up to picture `end` that were not given yet."""
        count = max(end - self._given, 0)
        used = count * whisper.STEPS_PER_PICTURE
        rows = _windows(self._steps, count)
        self._steps = self._steps[used:].copy()  # a view would keep all that was heard in memory
        self._given += count
        return rows

    def _zeros(self, steps: int) -> Floats:
        return np.zeros((steps, whisper.LAYERS, self._ear.width), np.float32)


def at_16_khz(pcm: Pcm, rate: int) -> Floats:
    """int16 sound at `rate` Hz as float32 in -1..1 at 16 kHz; silence lies on either side of it."""
    sound: Floats = pcm.astype(np.float32) / np.float32(32768)
    if rate == whisper.SAMPLE_RATE or not len(sound):
        return sound
    import soxr  # type: ignore[import-untyped]

    resampled: Floats = soxr.resample(sound, rate, whisper.SAMPLE_RATE)
    samples = len(pcm) * whisper.SAMPLE_RATE // rate
    padded: Floats = np.pad(resampled[:samples], (0, max(samples - len(resampled), 0)))
    return padded


def rest_row(ear: Ear) -> Floats:
    """The row of silence, float32 [50, width]."""
    silence = whisper.log_mel(np.zeros(0, np.float32))
    row: Floats = _windows(ear.steps(silence, _SILENT_STEP, _SILENT_STEP + whisper.STEPS_PER_ROW), 1)[0]
    return row


def _windows(steps: Floats, count: int) -> Floats:
    """Views [count, 50, width] of ten successive steps [any, 5, width] each, every one two steps after the one before."""
    if count == 0:
        return np.zeros((0, whisper.TOKENS, steps.shape[-1]), np.float32)
    tokens = np.ascontiguousarray(steps).reshape(-1, steps.shape[-1])
    views = np.lib.stride_tricks.sliding_window_view(tokens, whisper.TOKENS, axis=0)[:: whisper.STEPS_PER_PICTURE * whisper.LAYERS]
    rows: Floats = views[:count].transpose(0, 2, 1)
    return rows
