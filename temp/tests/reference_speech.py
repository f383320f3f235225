"""What the voice says for a text, made beside the product, and where it is found in a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soxr  # type: ignore[import-untyped] # the package has no types
from numpy.typing import NDArray

from gpuserver.domain import SAMPLE_RATE, Speech, TimedViseme
from gpuserver.pipeline.sentences import sentences, whole
from gpuserver.pipeline.voice_hibari import HibariVoice


def speak(text: str) -> list[Speech]:
    """The pieces in which the product speaks the text with its built-in voice."""

    async def work() -> list[Speech]:
        voice = HibariVoice()
        try:
            return [piece async for sentence in sentences(whole(text)) async for piece in voice.speak(sentence)]
        finally:
            await voice.aclose()

    with ThreadPoolExecutor(1) as thread:  # the browser's driver keeps an event loop running in this one
        return thread.submit(asyncio.run, work()).result()


def samples(speech: Speech) -> NDArray[np.float32]:
    """Its sound as float32 at 48 kHz, -1..1."""
    return np.asarray(soxr.resample(speech.pcm.astype(np.float32) / 32768, speech.sample_rate, SAMPLE_RATE), np.float32)


def find(needle: NDArray[np.float32], sound: NDArray[np.float32]) -> tuple[int, float]:
    """Where in `sound` the needle is: index of its first sample, and how alike they are there (normalised correlation, 0..1)."""
    size = 1 << (len(sound) + len(needle)).bit_length()
    product = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(needle, size)), size)[: len(sound) - len(needle) + 1]
    energy = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    local = energy[len(needle) :] - energy[: len(energy) - len(needle)]
    likeness = product / np.sqrt(np.maximum(local, 1e-6) * float(np.sum(needle.astype(np.float64) ** 2)))
    best = int(np.argmax(likeness))
    return best, float(likeness[best])


def shifted(visemes: Sequence[TimedViseme], seconds: float) -> list[TimedViseme]:
    """The same visemes, later by `seconds`."""
    return [TimedViseme(each.viseme, each.start + seconds, each.end + seconds) for each in visemes]
