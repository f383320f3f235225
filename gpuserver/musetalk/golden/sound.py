"""Golden data of the sound's way: which step feeds which frame, and the spectrogram."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats, Pcm
from gpuserver.musetalk.golden.files import GoldenFile, GoldenFolder
from gpuserver.musetalk.neural.whisper_features import SAMPLE_RATE, log_mel, upstream_windows

MEL = 1e-4

_WINDOWS = re.compile(r"idx_fps(?P<fps>[\d.]+)_len(?P<samples>\d+)")
_FIRST_FRAMES = re.compile(r"mel_first_(?P<frames>\d+)")


def check_windows(file: GoldenFile, _folder: GoldenFolder) -> None:
    for name in file.arrays:
        if match := _WINDOWS.fullmatch(name):
            file.compare(name, upstream_windows(int(match["samples"]), float(match["fps"])), tolerance=0)


def check_mel(file: GoldenFile, _folder: GoldenFolder) -> None:
    mel = log_mel(sound_of(file.use("pcm")))
    file.compare("mel", mel, MEL)
    heard = 0
    for name in file.arrays:
        if match := _FIRST_FRAMES.fullmatch(name):
            heard = int(match["frames"])
            file.compare(name, mel[:, :heard], MEL)
    tail = mel[:, heard:]
    for name in ("mel_tail_const", "mel_tail_min"):
        if name in file:
            file.note(name, float(np.abs(tail.astype(np.float64) - float(file.use(name))).max()), MEL)


def sound_of(pcm: NDArray[np.generic]) -> Floats:
    """16-bit samples as -1..1."""
    return np.asarray(np.asarray(pcm, np.float32) / 32768, np.float32)


def synthetic_sound(seconds: float, seed: int = 7) -> Pcm:
    """The sound of the golden cases, int16 at 16 kHz: a hum of eleven harmonics in syllables, bursts of noise, 0.2 s of silence.

    synthetic_sound(3.2) is that of every case but one, synthetic_sound(31.5, seed=9) the one that is longer than a segment.
    """
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.RandomState(seed).standard_normal(len(time))
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    hum = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * time), 0, 1) ** 0.7
    sound = hum * syllables + 0.25 * noise * (np.sin(2 * np.pi * 1.1 * time + 1) > 0.8)
    sound[int(0.9 * SAMPLE_RATE) : int(1.1 * SAMPLE_RATE)] = 0
    return np.asarray(sound / np.abs(sound).max() * 0.6 * 32767, np.int16)
