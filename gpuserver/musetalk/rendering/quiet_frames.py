"""Finds the pauses in a sentence's sound, frame by frame."""

from __future__ import annotations

import numpy as np

from gpuserver.domain import FPS, Pcm

QUIET = 164  # of 32767, -46 dBFS: below the weakest fricatives of the voices here, above the noise of a decoded MP3
BEFORE, AFTER = 2, 2  # frames to each side that are quiet too: a mouth closes after its last sound and opens before the next one


class QuietFrames:
    """Hears one sentence. A frame is quiet if it and its neighbours are: a pause of 200 ms has one such frame, a stop as in "t" none."""

    def __init__(self, rate: int):
        self._rate = rate
        self._rest: Pcm = np.zeros(0, np.int16)  # of a frame that is not complete
        self._quiet = [True] * BEFORE  # per frame, whether it is quiet itself; before the sentence is silence
        self._heard = 0  # complete frames
        self._over = False

    def hear(self, pcm: Pcm) -> None:
        sound = np.concatenate([self._rest, pcm])
        while len(sound) >= (size := self._end(self._heard + 1) - self._end(self._heard)):
            self._note(sound[:size])
            sound = sound[size:]
        self._rest = sound

    def finish(self) -> None:
        """Silence follows."""
        if len(self._rest):
            self._note(self._rest)
        self._over = True

    @property
    def known(self) -> int:
        """How many frames can be told."""
        return self._heard if self._over else max(self._heard - AFTER, 0)

    def is_quiet(self, frame: int) -> bool:
        """frame: below `known`, or after the end."""
        return all(self._quiet[frame : frame + BEFORE + 1 + AFTER])

    def _note(self, sound: Pcm) -> None:
        self._quiet.append(int(np.abs(sound.astype(np.int32)).max()) < QUIET)
        self._heard += 1

    def _end(self, frames: int) -> int:
        """Samples in so many frames."""
        return frames * self._rate // FPS
