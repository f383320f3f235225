"""Hears one sentence and says per frame what the mouth does: from timed visemes where the voice knows them, else from the sound."""

from __future__ import annotations

import math

import numpy as np

from gpuserver.domain import FPS, FRAME_SECONDS, Floats, Speech, TimedViseme
from gpuserver.musetalk.warp import visemes
from gpuserver.musetalk.warp.audio_features import Loudness, SoundFeatures
from gpuserver.musetalk.warp.mouth_shape import Part, no_rows

_TINY = 1e-6  # seconds, below any voice's own rounding


class MouthListener:
    """Implements domain.Listener for one sentence; its first piece decides what drives the lips. Rows: mouth_shape.Part."""

    blocking = False

    def __init__(self) -> None:
        self._rate = 0
        self._listener: _SoundListener | _VisemeListener | None = None

    def hear(self, speech: Speech) -> Floats:
        """Rows of the frames whose look-ahead this piece completes. Raises ValueError when the rate changes within the sentence."""
        if self._listener is None:
            self._rate = speech.sample_rate
            self._listener = _SoundListener(self._rate) if speech.visemes is None else _VisemeListener(self._rate)
        if self._rate != speech.sample_rate:
            raise ValueError(f"the sample rate changes from {self._rate} to {speech.sample_rate} Hz within a sentence")
        return self._listener.hear(speech)

    def finish(self) -> Floats:
        return no_rows() if self._listener is None else self._listener.finish()


class _SoundListener:
    """The sound itself drives the lips."""

    def __init__(self, rate: int):
        self._sound = SoundFeatures(rate)

    def hear(self, speech: Speech) -> Floats:
        return self._sound.hear(speech.pcm)

    def finish(self) -> Floats:
        return self._sound.finish()


class _VisemeListener:
    """Timed visemes drive the lips; the loudness of the sound scales how far they open."""

    def __init__(self, rate: int):
        self._rate = rate
        self._samples = 0
        self._given = 0  # frames
        self._visemes: list[TimedViseme] = []
        self._loudness = Loudness(rate)

    def hear(self, speech: Speech) -> Floats:
        begin = self._samples / self._rate
        for viseme in speech.visemes or ():
            self._append(TimedViseme(viseme.viseme, begin + viseme.start, begin + viseme.end))
        self._samples += len(speech.pcm)
        self._loudness.hear(speech.pcm)
        known = self._samples / self._rate - visemes.LOOK_AHEAD
        return self._rows_until(math.floor(known / FRAME_SECONDS))

    def finish(self) -> Floats:
        self._loudness.finish()
        return self._rows_until(math.ceil(self._samples * FPS / self._rate))

    def _append(self, viseme: TimedViseme) -> None:
        """A viseme that a piece's end cut in two becomes one again."""
        last = self._visemes[-1] if self._visemes else None
        if last is not None and last.viseme is viseme.viseme and viseme.start - last.end < _TINY:
            self._visemes[-1] = TimedViseme(last.viseme, last.start, viseme.end)
        else:
            self._visemes.append(viseme)

    def _rows_until(self, end: int) -> Floats:
        if end <= self._given:
            return no_rows()
        rows = visemes.frame_rows(self._visemes, self._given, end - self._given)
        gain = self._loudness.gain((np.arange(self._given, end) + 0.5) * FRAME_SECONDS)
        rows[:, [Part.OPENING, Part.JAW]] *= gain[:, None]
        self._given = end
        horizon = end * FRAME_SECONDS - visemes.LOOK_BACK
        self._visemes = [v for v in self._visemes if v.end > horizon] or self._visemes[-1:]
        return rows
