"""Sound and announced words of one sentence become pieces of sound whose visemes cover them exactly. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuserver.domain import Pcm, TimedViseme
from gpuserver.pipeline.phonemes import TimedPhoneme
from gpuserver.pipeline.viseme_track import VisemeTrack

ROUNDING = 1e-6  # samples: the end of a word is not exact in floating point


@dataclass(frozen=True, slots=True, eq=False)
class SoundPiece:
    """pcm: int16 mono. visemes cover it; None where the sound itself drives the lips."""

    pcm: Pcm
    sample_rate: int
    visemes: tuple[TimedViseme, ...] | None


class AnnouncedSpeech:
    """Holds sound back until the words that sound in it are announced.

    The first piece decides for the whole sentence whether its lips follow visemes or the sound: lips that change their guide in the
    middle of a word jump. with_lips: visemes are wanted; without them nothing is held back.
    """

    def __init__(self, *, with_lips: bool):
        self._lips = VisemeTrack() if with_lips else None
        self._held: list[Pcm] = []
        self._sample_rate = 0
        self._given = 0  # samples
        self._complete = False

    @property
    def begun(self) -> bool:
        """Whether a piece was given."""
        return self._given > 0

    @property
    def holds(self) -> bool:
        """Whether sound waits for an announcement."""
        return bool(self._held)

    def add_sound(self, pcm: Pcm, sample_rate: int) -> None:
        """Sound that follows what came before; the rate (Hz) stays the same."""
        if len(pcm):
            self._held.append(pcm)
            self._sample_rate = sample_rate

    def announce(self, start: float, phonemes: Sequence[TimedPhoneme]) -> None:
        """A word begins `start` seconds after the sentence."""
        if self._lips is not None:
            self._lips.announce(start, phonemes)

    def complete(self) -> None:
        """All words are announced: silence follows the last one."""
        self._complete = True

    def take(self, *, waited_enough: bool = False) -> SoundPiece | None:
        """The sound whose lips are known, all that is held if that was waited for long enough; None if there is none."""
        sound = np.concatenate(self._held) if self._held else np.zeros(0, np.int16)
        if not self.begun and waited_enough and self._lips is not None and not self._lips.known:
            self._lips = None
        if self._lips is not None and not waited_enough and not (self._complete and self._lips.known):
            known = int(self._lips.known * self._sample_rate + ROUNDING) - self._given
            sound, rest = sound[: max(0, known)], sound[max(0, known) :]
        else:
            rest = sound[len(sound) :]
        if not len(sound):
            return None
        self._held = [rest] if len(rest) else []
        self._given += len(sound)
        visemes = None if self._lips is None else self._lips.take(len(sound) / self._sample_rate, ending=self._complete)
        return SoundPiece(sound, self._sample_rate, visemes)
