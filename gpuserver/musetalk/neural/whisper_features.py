"""From sound to what MuseTalk's UNet hears: log-mel spectrograms for Whisper, and the ten Whisper steps around each picture.

All sound here is mono at 16 kHz. Whisper hears 30 s at a time and answers 50 steps per second, each a stack of its
5 hidden states. A picture is drawn from 10 successive steps, 50 vectors: 80 ms before its beginning to 120 ms after.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import FPS, Floats

SAMPLE_RATE = 16_000  # Hz
SEGMENT_SECONDS = 30
SEGMENT = SEGMENT_SECONDS * SAMPLE_RATE  # 480,000 samples: Whisper takes exactly so many

HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
MELS = 80
MEL_FRAMES = SEGMENT // HOP  # 3000
_SILENCE = 1e-10  # the least power of a band

STEPS_PER_SECOND = 50
STEP = SAMPLE_RATE // STEPS_PER_SECOND  # 320 samples, 20 ms
SEGMENT_STEPS = SEGMENT // STEP  # 1500
LAYERS = 5  # hidden states per step: the embedding and the outputs of the 4 blocks, the last one normed

STEPS_PER_PICTURE = STEPS_PER_SECOND // FPS  # 2
STEPS_BEFORE = STEPS_AFTER = 4  # the picture's own two
STEPS_PER_ROW = STEPS_BEFORE + STEPS_PER_PICTURE + STEPS_AFTER  # 10
TOKENS = STEPS_PER_ROW * LAYERS  # 50

# Step k comes from the mel frames 2k - 2 to 2k + 2 (two convolutions of width 3, the second one with stride 2), and a mel
# frame from 12.5 ms of sound to either side of its middle.
STEP_LOOK_AHEAD = 2 * HOP + WINDOW // 2  # 520 samples after the step's beginning, 32.5 ms

Encode = Callable[[Floats], Floats]
"""Whisper's encoder: log-mel float32 [batch, 80, 3000] to hidden states float32 [batch, 1500, 5, width]."""

Indices = NDArray[np.int32]

_NO_STEPS: Floats = np.zeros((0, LAYERS, 0), np.float32)


# ---------------------------------------------------------------- log-mel


def log_mel(sound: Floats) -> Floats:
    """The spectrogram (float32 [80, 3000]) of up to 30 s of sound in -1..1; silence follows it.

    As Hugging Face's WhisperFeatureExtractor: 25 ms Hann windows every 10 ms, power, 80 mel bands, log10, no quieter than 8 below
    the loudest value of these 30 s, (x + 4) / 4.
    """
    if len(sound) > SEGMENT:
        raise ValueError(f"{len(sound)} samples are more than {SEGMENT_SECONDS} s")
    audible = min(math.ceil((len(sound) + WINDOW // 2) / HOP), MEL_FRAMES)  # later frames see silence only
    power = _power(sound, audible) @ _mel_filters()
    logarithm = np.log10(np.maximum(power, _SILENCE))
    quietest = max(logarithm.max(initial=math.log10(_SILENCE)) - 8, math.log10(_SILENCE))
    mel = np.full((MELS, MEL_FRAMES), (quietest + 4) / 4, np.float32)
    mel[:, :audible] = (np.maximum(logarithm, quietest).T + 4) / 4
    return mel


def _power(sound: Floats, frames: int) -> NDArray[np.float64]:
    """|rfft|^2 [frames, 201] of windows around every 160th sample; the sound is mirrored at its beginning, and at 30 s."""
    padded = np.zeros(min(len(sound) + WINDOW, SEGMENT))
    padded[: len(sound)] = sound
    padded = np.pad(padded, WINDOW // 2, mode="reflect")[: (frames - 1) * HOP + WINDOW]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * _hann(), axis=1)
    return spectrum.real**2 + spectrum.imag**2


@functools.cache
def _hann() -> NDArray[np.float64]:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


@functools.cache
def _mel_filters() -> NDArray[np.float64]:
    """Triangles [201, 80] of equal area between 0 and 8000 Hz on Slaney's mel scale."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), MELS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))


# Slaney's scale (Auditory Toolbox, 1998) is linear up to 1000 Hz = 15 mel, then logarithmic: 27 mel are a factor of 6.4.
_MEL_PER_E_FOLD = 27 / math.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * _MEL_PER_E_FOLD


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) / _MEL_PER_E_FOLD))


# ---------------------------------------------------------------- hidden states


def hidden_states(sound: Floats, encode: Encode) -> Iterator[Floats]:
    """The steps (float32 [1500 or fewer, 5, width]) of any length of sound, segment after segment of 30 s; floor(50 steps/s) in all.

    Nothing of one segment is known in the next one. A caller that keeps only what it needs has one segment in memory at a time.
    """
    for at in range(0, len(sound), SEGMENT):
        segment = sound[at : at + SEGMENT]
        steps = len(segment) // STEP
        if steps:
            yield encode(log_mel(segment)[None])[0, :steps]


def feature_rows(sound: Floats, encode: Encode, fps: float = FPS) -> Iterator[Floats]:
    """What upstream draws the pictures of a whole sound from: float32 [50, width] each, without positions.

    Holds two segments of 30 s at a time, however long the sound is.
    """
    segments = hidden_states(sound, encode)
    begin, steps = 0, next(segments, _NO_STEPS)
    for window in upstream_windows(len(sound), fps):
        if window.max() >= begin + len(steps):
            begin += max(len(steps) - SEGMENT_STEPS, 0)
            steps = np.concatenate([steps[-SEGMENT_STEPS:], next(segments)])
        yield gather(steps, np.where(window < 0, -1, window - begin)[None])[0]


def gather(steps: Floats, windows: NDArray[np.integer]) -> Floats:
    """The rows (float32 [n, 50, width]) that `windows` [n, 10] picks from steps [any, 5, width]; -1 picks zeros."""
    picked: Floats = steps[windows]
    picked[windows < 0] = 0
    return picked.reshape(len(windows), TOKENS, steps.shape[-1])


def upstream_windows(samples: int, fps: float) -> Indices:
    """Which 10 steps upstream MuseTalk draws each picture from, int32 [pictures, 10]; -1 where it feeds zeros.

    Upstream truncates the rate, and its windows slide into the past below 25 fps: with `reach` = ceil(50 / fps), picture i
    begins at step floor(i * 50 / fps) - 2 * reach. The number of pictures is floor(samples / 16000 * fps) in floating point,
    which at 25 fps loses the last picture of one sound in seventeen (29 * 640 samples have 28 pictures).
    """
    rate = int(fps)
    seconds = samples / SAMPLE_RATE
    pictures, steps = math.floor(seconds * rate), math.floor(seconds * STEPS_PER_SECOND)
    before = min(2 * math.ceil(STEPS_PER_SECOND / rate), steps)
    begins = np.floor(np.arange(pictures) * (STEPS_PER_SECOND / rate)).astype(np.int64) - before
    windows = begins[:, None] + np.arange(STEPS_PER_ROW)
    return np.where((windows < 0) | (windows >= steps), -1, windows).astype(np.int32)


def positional_encoding(width: int = 384) -> Floats:
    """What is added to the 50 vectors of a row, float32 [50, width]: sine in even columns, cosine in odd ones (Vaswani et al., 2017)."""
    position = np.arange(TOKENS)[:, None]
    angle = position * np.exp(np.arange(0, width, 2) * (-math.log(10_000) / width))
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(TOKENS, width).astype(np.float32)
