"""One sentence on its way from sound to lips: pairs every 40 ms of sound with its feature row."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpuserver.domain import FRAME_SECONDS, SAMPLES_PER_FRAME, Floats, Hearing, Pcm, Speech, TimedViseme
from gpuserver.pipeline.resample import SoundFrames

LETTERS_PER_SECOND = 15.0  # of unhurried English speech
IDEOGRAPHS_PER_SECOND = 4.5  # of unhurried Chinese speech
ROUNDING = 1e-6  # characters; the last frame's end is not exact in floating point

SLICE_SECONDS = 0.24  # of sound heard at a time: a long piece must not hold up the event loop, nor its own first frame
LONGEST_SECONDS = 30.0  # where a thread waits for a network that hears a sentence best, and in the same time, as a whole

SILENT_FRAME: Pcm = np.zeros(SAMPLES_PER_FRAME, np.int16)
SILENT_FRAME.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class SpokenFrame:
    """40 ms of a sentence: sound (int16 [1920]), feature row, and how many characters of the sentence are said at its end."""

    sound: Pcm
    features: Floats
    heard: int


class Utterance:
    """Takes a sentence's sound piece by piece and gives each frame as soon as sound and row exist. No I/O.

    Silence fills the last frame. Where sound and rows differ in number, silence or resting lips make up for it.
    """

    def __init__(self, text: str, engine: Hearing):
        self._text = text
        self._listener = engine.listener()
        self._rest = engine.rest()
        self._cutter = SoundFrames()
        self._sounds: deque[Pcm] = deque()
        self._rows: deque[Floats] = deque()
        self._sound_seconds = 0.0
        self._given = 0  # frames

    @property
    def blocking(self) -> bool:
        """Whether hearing it may take long and does not belong on the event loop."""
        return self._listener.blocking

    @property
    def slice_seconds(self) -> float:
        """How much of its sound it is to hear at a time, at most."""
        return LONGEST_SECONDS if self.blocking else SLICE_SECONDS

    def hear(self, speech: Speech) -> list[SpokenFrame]:
        """The frames that became complete with this piece."""
        self._sound_seconds += speech.seconds
        self._sounds.extend(self._cutter.push(speech.pcm, speech.sample_rate))
        self._rows.extend(self._listener.hear(speech))
        return self._frames(min(len(self._sounds), len(self._rows)), max(self._sound_seconds, estimated_seconds(self._text)))

    def finish(self) -> list[SpokenFrame]:
        """All remaining frames; with the last one the whole sentence is said."""
        if not self._sound_seconds:
            return []
        self._sounds.extend(self._cutter.finish())
        self._rows.extend(self._listener.finish())
        remaining = max(len(self._sounds), len(self._rows))
        self._sounds.extend([SILENT_FRAME] * (remaining - len(self._sounds)))
        self._rows.extend([self._rest] * (remaining - len(self._rows)))
        return self._frames(remaining, self._sound_seconds)

    def _frames(self, count: int, seconds: float) -> list[SpokenFrame]:
        """The next frames of a sentence that takes so many seconds in all: an estimate while its sound is still coming."""
        frames = []
        for _ in range(count):
            self._given += 1
            heard = min(len(self._text), int(len(self._text) * self._given * FRAME_SECONDS / seconds + ROUNDING))
            frames.append(SpokenFrame(self._sounds.popleft(), self._rows.popleft(), heard))
        return frames


def slices(speech: Speech, seconds: float) -> Iterator[Speech]:
    """The piece cut into pieces of at most so many seconds; a viseme that is cut goes on in the next one."""
    size = round(seconds * speech.sample_rate)
    for at in range(0, len(speech.pcm), size):
        pcm = speech.pcm[at : at + size]
        begin, end = at / speech.sample_rate, (at + len(pcm)) / speech.sample_rate
        yield replace(speech, pcm=pcm, visemes=None if speech.visemes is None else _between(speech.visemes, begin, end))


def _between(visemes: Sequence[TimedViseme], begin: float, end: float) -> tuple[TimedViseme, ...]:
    """The part of the visemes from `begin` to `end`, in seconds from `begin`."""
    return tuple(
        replace(each, start=max(each.start, begin) - begin, end=min(each.end, end) - begin)
        for each in visemes
        if min(each.end, end) > max(each.start, begin)
    )


def estimated_seconds(text: str) -> float:
    """About how long it takes to say the text."""
    ideographs = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return ideographs / IDEOGRAPHS_PER_SECOND + (len(text) - ideographs) / LETTERS_PER_SECOND


def cut_at_word(text: str, heard: int) -> str:
    """The first `heard` characters, without a word that was broken off; Chinese is cut anywhere."""
    if heard >= len(text):
        return text
    said = text[:heard]
    broken = said[-1:].isalpha() and said[-1:].isascii() and text[heard].isalpha()
    return said.rpartition(" ")[0] if broken else said.rstrip()
