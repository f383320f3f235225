"""Sound files of all formats, made on the spot."""

from __future__ import annotations

import io
from typing import cast

import av
import numpy as np

from gpuserver.domain import SAMPLE_RATE


def encoded(seconds: float, container: str = "wav", codec: str = "pcm_s16le") -> bytes:
    """A tone of 440 Hz in a file of this format."""
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = cast("av.AudioStream", out.add_stream(codec, rate=SAMPLE_RATE, layout="mono"))
        frame = av.AudioFrame.from_ndarray(tone.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
