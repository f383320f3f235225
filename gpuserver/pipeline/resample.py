"""Sound at a voice's own rate becomes frames of 1920 samples at 48 kHz, resampled exactly once."""

from __future__ import annotations

import numpy as np
import soxr  # type: ignore[import-untyped]

from gpuserver.domain import SAMPLE_RATE, SAMPLES_PER_FRAME, Pcm

NOTHING: Pcm = np.zeros(0, np.int16)


class SoundFrames:
    """Cuts the sound of one sentence into frames, as soon as each is complete. No I/O."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler: soxr.ResampleStream | None = None
        self._rest = NOTHING  # less than a frame

    def push(self, pcm: Pcm, sample_rate: int) -> list[Pcm]:
        """The frames (int16 [1920]) that this piece (int16 mono at sample_rate) completes."""
        tail = NOTHING
        if sample_rate != self._rate:
            tail = self._flush()
            self._rate = sample_rate
            self._resampler = None if sample_rate == SAMPLE_RATE else soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="int16")
        sound = pcm if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(pcm))
        return self._cut(np.concatenate([tail, sound]))

    def finish(self) -> list[Pcm]:
        """The remaining frames; silence fills the last one."""
        frames = self._cut(self._flush())
        if len(self._rest):
            frames.append(np.pad(self._rest, (0, SAMPLES_PER_FRAME - len(self._rest))))
            self._rest = NOTHING
        return frames

    def _flush(self) -> Pcm:
        """What the resampler still holds back."""
        return NOTHING if self._resampler is None else self._resampler.resample_chunk(NOTHING, last=True)

    def _cut(self, sound: Pcm) -> list[Pcm]:
        sound = np.concatenate([self._rest, sound])
        whole = len(sound) // SAMPLES_PER_FRAME
        self._rest = sound[whole * SAMPLES_PER_FRAME :]
        return list(sound[: whole * SAMPLES_PER_FRAME].reshape(whole, SAMPLES_PER_FRAME))
