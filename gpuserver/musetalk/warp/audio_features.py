"""What the sound itself says about the mouth: loudness, and the shape of the vowel from the energy around its formants.

Jaw and first formant go together (an open vowel has F1 at 600-900 Hz, a closed one at 300 Hz), lip width and second formant
too (a spread /i/ has F2 above 2 kHz, a rounded /u/ below 1 kHz). Everything looks back without end and ahead by LOOK_AHEAD only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import FPS, FRAME_SECONDS, Floats, Pcm
from gpuserver.musetalk.warp.mouth_shape import PARTS, Part, no_rows

HOP = 0.010  # seconds between two analyses
WINDOW = 0.030  # seconds of sound in one analysis
SMOOTHING = 0.05  # seconds to each side over which a frame's row is averaged
LOOK_AHEAD = FRAME_SECONDS / 2 + SMOOTHING + WINDOW / 2  # beyond a frame's beginning: 85 ms

_QUIETEST_VOICE = -38.0  # dB below full scale: a voice is at least this loud where it is loudest
_FORGETTING = 2.0  # dB per second: how fast a loud moment is forgotten
_SILENCE = -70.0  # dB below full scale
_BANDS = {"murmur": (90, 320), "first": (600, 1300), "back": (650, 1250), "front": (1700, 2900), "hiss": (3800, 7600), "voice": (90, 3400)}


class Analyser:
    """Cuts a stream of sound into overlapping windows, one every HOP, the first in the middle of time 0."""

    def __init__(self, rate: int):
        self._rate = rate
        self._half = round(WINDOW / 2 * rate)
        self._held = np.zeros(self._half)  # silence before the sound
        self._start = -self._half  # sample number of _held[0]
        self._next = 0  # number of the next window

    def hear(self, pcm: Pcm) -> NDArray[np.float64]:
        """Windows [n, samples] that are complete now, full scale is 1."""
        self._held = np.concatenate([self._held, pcm / 32768])
        windows = []
        while (middle := round(self._next * HOP * self._rate)) + self._half <= self._start + len(self._held):
            begin = middle - self._half - self._start
            windows.append(self._held[begin : begin + 2 * self._half])
            self._next += 1
        drop = max(round(self._next * HOP * self._rate) - self._half - self._start, 0)
        self._held, self._start = self._held[drop:], self._start + drop
        return np.array(windows).reshape(len(windows), 2 * self._half)

    def finish(self) -> NDArray[np.float64]:
        """The windows that reach beyond the end, where silence is."""
        return self.hear(np.zeros(math.ceil((WINDOW + 2 * LOOK_AHEAD) * self._rate), np.int16))


def _decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10 * np.log10(power + 1e-7))


class Loudness:
    """How loud each moment is in comparison with the voice's own loudest moments so far."""

    def __init__(self, rate: int):
        self._analyser = Analyser(rate)
        self._loudest = _QUIETEST_VOICE
        self._below: list[float] = []  # dB below the loudest, per HOP

    def hear(self, pcm: Pcm) -> None:
        self._note(self._analyser.hear(pcm))

    def finish(self) -> None:
        self._note(self._analyser.finish())

    def _note(self, windows: NDArray[np.float64]) -> None:
        for level in _decibels((windows**2).mean(1)):
            self._loudest = max(level, self._loudest - _FORGETTING * HOP)
            self._below.append(level - self._loudest)

    def gain(self, times: NDArray[np.floating]) -> Floats:
        """Factor for the opening at each time: 1.1 at the loudest, 0.7 for what is 20 dB softer or more."""
        below = np.array(self._below)
        index = np.round(times / HOP).astype(int)[:, None] + np.arange(-6, 7)
        level = below[np.clip(index, 0, len(below) - 1)].max(1)
        return np.asarray(np.clip(1.1 + 0.02 * level, 0.7, 1.1), np.float32)


class SoundFeatures:
    """Feature rows from the sound of one sentence, where the voice gives no visemes."""

    def __init__(self, rate: int):
        self._rate = rate
        self._analyser = Analyser(rate)
        self._loudest = _QUIETEST_VOICE
        self._rows: list[NDArray[np.float64]] = []  # per HOP
        self._samples = 0
        self._given = 0  # frames
        window = 2 * round(WINDOW / 2 * rate)
        self._taper = np.hanning(window)
        frequencies = np.fft.rfftfreq(window, 1 / rate)
        self._bands = {name: (frequencies >= low) & (frequencies < high) for name, (low, high) in _BANDS.items()}

    def hear(self, pcm: Pcm) -> Floats:
        self._samples += len(pcm)
        self._note(self._analyser.hear(pcm))
        return self._rows_until(math.floor((self._samples / self._rate - LOOK_AHEAD) / FRAME_SECONDS))

    def finish(self) -> Floats:
        self._note(self._analyser.finish())
        return self._rows_until(math.ceil(self._samples * FPS / self._rate))

    def _note(self, windows: NDArray[np.float64]) -> None:
        if not len(windows):
            return
        levels = _decibels((windows**2).mean(1))
        power = np.abs(np.fft.rfft(windows * self._taper, axis=1)) ** 2
        bands = {name: _decibels(power[:, chosen].sum(1)) for name, chosen in self._bands.items()}
        for i, level in enumerate(levels):
            self._loudest = max(level, self._loudest - _FORGETTING * HOP)
            self._rows.append(_shape(level - self._loudest, {name: float(band[i]) for name, band in bands.items()}))

    def _rows_until(self, end: int) -> Floats:
        count = end - self._given
        if count <= 0:
            return no_rows()
        reach = round(SMOOTHING / HOP)
        window = np.hanning(2 * reach + 3)[1:-1]
        middles = np.round((np.arange(self._given, end) + 0.5) * FRAME_SECONDS / HOP).astype(int)
        index = np.clip(middles[:, None] + np.arange(-reach, reach + 1), 0, len(self._rows) - 1)
        rows = np.einsum("fwp,w->fp", np.array(self._rows)[index], window / window.sum())
        # Lips that are all but closed are closed.
        rows[:, Part.OPENING] = np.maximum(rows[:, Part.OPENING] - 0.02, 0) * 1.06
        self._given = end
        return np.asarray(rows, np.float32)


def _ramp(low: float, high: float, value: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _shape(level: float, band: dict[str, float]) -> NDArray[np.float64]:
    """The mouth's shape of one moment. level: dB below the voice's loudest; band: dB of each band."""
    loud = _ramp(-40.0, -5.0, level) ** 1.2
    open_vowel = _ramp(-30.0, 5.0, band["first"] - band["murmur"])
    spread = _ramp(-22.0, 2.0, band["front"] - band["back"])
    hiss = _ramp(-18.0, 16.0, band["hiss"] - band["voice"])
    vowel = loud * (0.08 + 0.32 * open_vowel)
    row = np.zeros(PARTS)
    row[Part.OPENING] = vowel + hiss * (0.09 * min(1.0, 2 * loud) - vowel)
    row[Part.JAW] = (1 - hiss) * loud * (0.03 + 0.22 * open_vowel)
    row[Part.WIDTH] = loud * (1 - hiss) * (0.16 * spread - 0.09)
    row[Part.ROUNDING] = loud * (1 - hiss) * _ramp(0.45, 0.1, spread) * (1 - 0.5 * open_vowel)
    row[Part.LIFT] = loud * (0.2 + 0.3 * spread)
    row[Part.TEETH] = loud * max(0.3 + 0.6 * spread, hiss)
    row[Part.TONGUE] = 0.1 * loud
    return row
