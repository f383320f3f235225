"""Speech as bytes of a file that is sent while it is being made: WAV, headerless PCM or MP3, always 24 kHz mono."""

from __future__ import annotations

from typing import Protocol

import av
import numpy as np
import soxr  # type: ignore[import-untyped]

from gpuserver.domain import Pcm
from gpuserver.pipeline.wav import HEADERLESS_RATE as RATE
from gpuserver.pipeline.wav import open_ended_header

MP3_BITRATE = 96_000  # bit/s, plenty for one voice


class SpeechFormat(Protocol):
    """Takes sound piece by piece; used from one thread at a time."""

    @property
    def content_type(self) -> str: ...

    def encode(self, pcm: Pcm) -> bytes:
        """What can be sent after these samples, int16 mono at RATE; may be nothing."""
        ...

    def finish(self) -> bytes:
        """What is left."""
        ...


class PcmFormat:
    """Little-endian 16-bit samples, nothing else."""

    content_type = "audio/pcm"

    def encode(self, pcm: Pcm) -> bytes:
        return pcm.astype("<i2").tobytes()

    def finish(self) -> bytes:
        return b""


class WavFormat(PcmFormat):
    content_type = "audio/wav"

    def __init__(self) -> None:
        self._head = open_ended_header(RATE)

    def encode(self, pcm: Pcm) -> bytes:
        head, self._head = self._head, b""
        return head + super().encode(pcm)


class Mp3Format:
    content_type = "audio/mpeg"

    def __init__(self) -> None:
        self._encoder = av.AudioCodecContext.create("libmp3lame", "w")
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = RATE, "mono", "s16p"
        self._encoder.bit_rate = MP3_BITRATE
        self._samples = 0

    def encode(self, pcm: Pcm) -> bytes:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate, frame.pts = RATE, self._samples
        self._samples += len(pcm)
        return b"".join(map(bytes, self._encoder.encode(frame)))

    def finish(self) -> bytes:
        return b"".join(map(bytes, self._encoder.encode(None)))


FORMATS: dict[str, type[WavFormat] | type[PcmFormat] | type[Mp3Format]] = {"mp3": Mp3Format, "wav": WavFormat, "pcm": PcmFormat}


class SpeechFile:
    """One text's sound in one format; the voices that speak it may have different rates."""

    def __init__(self, response_format: str):
        self._format: SpeechFormat = FORMATS[response_format]()
        self._rate = RATE
        self._resampler: soxr.ResampleStream | None = None

    @property
    def content_type(self) -> str:
        return self._format.content_type

    def add(self, pcm: Pcm, sample_rate: int) -> bytes:
        """The bytes that follow; pcm: int16 mono at sample_rate (Hz)."""
        tail = self._flush() if sample_rate != self._rate else b""
        if sample_rate != self._rate:
            self._rate = sample_rate
            self._resampler = None if sample_rate == RATE else soxr.ResampleStream(sample_rate, RATE, 1, dtype="int16")
        return tail + self._encode(pcm if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(pcm)))

    def finish(self) -> bytes:
        """The last bytes."""
        return self._flush() + self._format.finish()

    def _flush(self) -> bytes:
        """What the resampler still holds back."""
        return b"" if self._resampler is None else self._encode(self._resampler.resample_chunk(np.zeros(0, np.int16), last=True))

    def _encode(self, pcm: Pcm) -> bytes:
        return self._format.encode(pcm) if len(pcm) else b""
