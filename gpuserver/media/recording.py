"""Reads the sound of an audio file that may be hostile. No name of a file or URL reaches the demuxer, and it may open nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpuserver.domain import SAMPLE_RATE, Pcm, Speech
from gpuserver.errors import InvalidInput, Unreadable

AUDIO_FORMATS = "wav,mp3,flac,ogg,aac,aiff,mov,mp4,m4a,matroska,webm"
LONGEST = 600  # seconds


def read_sound(path: Path) -> Pcm:
    """The sound of a file: int16 [samples] at SAMPLE_RATE, all channels mixed to one.

    Raises Unreadable where it has no sound that can be decoded, InvalidInput where that is longer than LONGEST.
    """
    with path.open("rb") as file:
        return np.concatenate(list(sound_pieces(file, LONGEST)))


def sound_pieces(file: BinaryIO, longest: float) -> Iterator[Pcm]:
    """The sound of an open file piece by piece, as read_sound() gives it whole. longest: seconds."""
    import av

    sandbox = {"format_whitelist": AUDIO_FORMATS, "protocol_whitelist": "file", "enable_drefs": "0"}
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    samples = 0
    try:
        with av.open(file, "r", container_options=sandbox, metadata_errors="replace") as container:
            stream = container.streams.audio[0] if container.streams.audio else None
            for frame in chain(() if stream is None else container.decode(stream), [None]):
                for mixed in resampler.resample(frame):
                    samples += mixed.samples
                    if samples > longest * SAMPLE_RATE:
                        raise InvalidInput(f"The sound is longer than {longest:.0f} s.", advice="Cut it into shorter parts.")
                    yield np.asarray(mixed.to_ndarray()[0], np.int16)
    except (av.error.FFmpegError, OSError) as error:
        raise Unreadable("The file's sound cannot be read.", advice=f"Known formats: {AUDIO_FORMATS}.") from error
    if not samples:
        raise Unreadable("The file has no sound.", advice=f"Known formats: {AUDIO_FORMATS}.")


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
