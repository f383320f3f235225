"""Four seconds of an avatar that talks, drawn beforehand: pictures as they would be shown and the sound that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuserver.domain import SAMPLE_RATE, SAMPLES_PER_FRAME, Avatar, Bytes2D, Generation, MouthJob, Pcm, Speech
from gpuserver.musetalk.rendering.compositor import compose
from gpuserver.musetalk.warp.warp_engine import WarpEngine

FRAMES = 100
SYLLABLES_PER_SECOND = 4


@dataclass(frozen=True, slots=True, eq=False)
class SpokenFrames:
    """pictures: uint8 [h * 3 / 2, w], I420. sounds: int16 [1920] each."""

    pictures: Sequence[Bytes2D]
    sounds: Sequence[Pcm]


def spoken_frames(avatar: Avatar) -> SpokenFrames:
    """A hum in syllables; the lips follow it."""
    time = np.arange(FRAMES * SAMPLES_PER_FRAME) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * 140 * harmonic * time) / harmonic for harmonic in range(1, 12))
    pcm = (6000 * tones * np.sin(np.pi * SYLLABLES_PER_SECOND * time) ** 2).astype(np.int16)
    engine = WarpEngine()
    listener = engine.listener()
    rows = np.concatenate([listener.hear(Speech(pcm, SAMPLE_RATE, "")), listener.finish()])
    pictures = []
    for index, row in zip(range(FRAMES), rows, strict=False):
        frame = avatar.frame_at(index)
        pictures.append(compose(frame, engine.render([MouthJob(frame, row, 0.0, Generation(1))])[0]))
    return SpokenFrames(pictures, list(pcm.reshape(FRAMES, SAMPLES_PER_FRAME)))
