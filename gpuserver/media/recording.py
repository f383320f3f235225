"""Reads the sound of an audio file that may be hostile. No name of a file or URL reaches the demuxer, and it may open nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from gpuserver.domain import SAMPLE_RATE, Pcm, Speech
from gpuserver.errors import InvalidInput, Unreadable

AUDIO_FORMATS = "wav,mp3,flac,ogg,aac,aiff,mov,mp4,m4a,matroska,webm"
LONGEST = 600  # seconds


def read_sound(path: Path) -> Pcm:
    """The sound of a file: int16 [samples] at SAMPLE_RATE, all channels mixed to one.

    Raises Unreadable where it has no sound that can be decoded, InvalidInput where that is longer than LONGEST.
    """
    import av

    sandbox = {"format_whitelist": AUDIO_FORMATS, "protocol_whitelist": "file", "enable_drefs": "0"}
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts: list[Pcm] = []
    samples = 0
    try:
        with path.open("rb") as file, av.open(file, "r", container_options=sandbox, metadata_errors="replace") as container:
            for frame in [] if not container.streams.audio else container.decode(container.streams.audio[0]):
                for mixed in resampler.resample(frame):
                    samples += mixed.samples
                    if samples > LONGEST * SAMPLE_RATE:
                        raise InvalidInput(f"The sound is longer than {LONGEST} s.", advice="Cut it into shorter parts.")
                    parts.append(np.asarray(mixed.to_ndarray()[0], np.int16))
            parts += [np.asarray(mixed.to_ndarray()[0], np.int16) for mixed in resampler.resample(None)]
    except (av.error.FFmpegError, OSError) as error:
        raise Unreadable("The file's sound cannot be read.", advice=f"Known formats: {AUDIO_FORMATS}.") from error
    if not samples:
        raise Unreadable("The file has no sound.", advice=f"Known formats: {AUDIO_FORMATS}.")
    return np.concatenate(parts)


class Recording:
    """Implements Voice: whatever it is told to say, it plays one sound, of which it knows no visemes."""

    name = "recording"

    def __init__(self, sound: Pcm):
        """sound: int16 at SAMPLE_RATE."""
        self._sound = sound

    def can_speak(self, text: str) -> bool:
        return True

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncIterator[Speech]:
        yield Speech(self._sound, SAMPLE_RATE, text, None)

    async def aclose(self) -> None:
        """Nothing is held."""
