"""Uploaded audio files as voices: decoded in a child process with limits, playable from the first piece on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import weakref
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import structlog

from gpuserver.domain import SAMPLE_RATE, Pcm, Speech
from gpuserver.errors import GpuserverError, InvalidInput, TooManyWaiting, Unreadable, VoiceFailed
from gpuserver.media.recording import AUDIO_FORMATS
from gpuserver.media.sound_decoder import TOO_LONG, UNREADABLE
from gpuserver.musetalk.preparing.child_process import child_environment

LONGEST = 300  # seconds of one sound
MOST_HELD = 1800  # seconds of all sounds that are being played or wait for it: 173 MB
MOST_AT_ONCE = 4  # files that are being decoded
WALL_SECONDS = 60.0  # five minutes of sound take two
PIECE_BYTES = 48_000  # half a second
TITLE = "Recording."  # what is written where a text would be

log = structlog.get_logger(__name__)


class UploadedSound:
    """Implements Voice: whatever it is told to say, it plays its sound, of which it knows no visemes, while it is still being decoded."""

    name = "recording"

    def __init__(self) -> None:
        self._pieces: list[Pcm] = []
        self._failure: GpuserverError | None = None
        self._complete = False
        self._change = asyncio.Event()

    def can_speak(self, text: str) -> bool:
        return True

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncIterator[Speech]:
        """Raises VoiceFailed where the file turns out to be unreadable in its middle."""
        number = 0
        while await self._has(number):
            yield Speech(self._pieces[number], SAMPLE_RATE, text if number == 0 else "", voice=self.name)
            number += 1
        if self._failure is not None:
            raise VoiceFailed(self._failure.detail)

    async def aclose(self) -> None:
        """Nothing is held that needs closing."""

    async def begun(self) -> None:
        """Returns when there is something to be heard. Raises Unreadable, InvalidInput where there will be nothing."""
        if not await self._has(0):
            raise self._failure or Unreadable("The file has no sound.")

    def add(self, pcm: Pcm) -> None:
        """What was decoded: int16 at SAMPLE_RATE."""
        self._pieces.append(pcm)
        self._change.set()

    def end(self, failure: GpuserverError | None) -> None:
        """Nothing more comes, because of `failure` unless that is the whole sound."""
        self._failure = failure
        self._complete = True
        self._change.set()

    async def _has(self, number: int) -> bool:
        while number >= len(self._pieces) and not self._complete:
            self._change.clear()
            await self._change.wait()
        return number < len(self._pieces)


class AudioUploads:
    """Decodes files, a few at a time, and keeps an account of the sound that is held in memory."""

    def __init__(self) -> None:
        self._starting = 0  # decoders that are about to be in _decoding
        self._decoding: set[asyncio.Task[None]] = set()
        self._held = 0  # sounds, each counted as LONGEST until it is complete and by its length from then on

    async def decode(self, path: Path) -> UploadedSound:
        """The sound of a file, as soon as it begins; the file is not needed any more then.

        Raises Unreadable, InvalidInput (too long), TooManyWaiting.
        """
        if self._starting + len(self._decoding) >= MOST_AT_ONCE or self._held + LONGEST > MOST_HELD:
            raise _too_many()
        sound = UploadedSound()
        account = _Account(self, sound)
        self._starting += 1
        try:
            child = await _start_decoder(path)
        finally:
            self._starting -= 1
        task = asyncio.create_task(_collect(child, sound, account), name="decode sound")
        self._decoding.add(task)
        task.add_done_callback(self._decoding.discard)
        await sound.begun()
        return sound

    def count(self, seconds: int) -> None:
        """Add to the account, or take away."""
        self._held += seconds

    async def aclose(self) -> None:
        """Stop decoding."""
        for task in self._decoding:
            task.cancel()
        await asyncio.gather(*self._decoding, return_exceptions=True)


class _Account:
    """What one sound takes of the memory for all, from its announcement until nobody holds it any more."""

    def __init__(self, uploads: AudioUploads, sound: UploadedSound):
        self._uploads = uploads
        self._seconds = LONGEST
        uploads.count(LONGEST)
        weakref.finalize(sound, self._close)

    def settle(self, samples: int) -> None:
        """The sound is complete."""
        seconds = -(-samples // SAMPLE_RATE)
        self._uploads.count(seconds - self._seconds)
        self._seconds = seconds

    def _close(self) -> None:
        self._uploads.count(-self._seconds)
        self._seconds = 0


def _too_many() -> TooManyWaiting:
    return TooManyWaiting("Too many sounds are being read or wait to be played.", advice="Send it again when others are over.")


async def _start_decoder(path: Path) -> Process:
    with await asyncio.to_thread(path.open, "rb") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "gpuserver.media.sound_decoder", str(LONGEST),
            stdin=file, stdout=PIPE, stderr=DEVNULL, env=child_environment(), start_new_session=True,
        )  # fmt: skip


async def _collect(child: Process, sound: UploadedSound, account: _Account) -> None:
    """Read the child's output to its end. The child is gone when this returns."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    failure: GpuserverError | None = GpuserverError("The sound could not be read to its end.")
    samples = 0
    try:
        async with asyncio.timeout(WALL_SECONDS):
            while data := await _piece(child.stdout):
                pcm = np.frombuffer(data, np.int16)
                samples += len(pcm)
                sound.add(pcm)
            failure = _failure(await child.wait())
    except TimeoutError:
        failure = InvalidInput("The sound took too long to decode.")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        account.settle(samples)
        sound.end(failure)
    if failure is not None:
        log.info("sound_refused", detail=failure.detail, status=child.returncode)


async def _piece(stream: asyncio.StreamReader) -> bytes:
    """The next half second, less at the end; always whole samples."""
    try:
        return await stream.readexactly(PIECE_BYTES)
    except asyncio.IncompleteReadError as end:
        return end.partial[: len(end.partial) // 2 * 2]


def _failure(status: int) -> GpuserverError | None:
    formats = f"Known formats: {AUDIO_FORMATS}."
    match status:
        case 0:
            return None
        case code if code == TOO_LONG:
            return InvalidInput(f"The sound is longer than {LONGEST} s.", advice="Cut it into shorter parts.")
        case code if code == UNREADABLE:
            return Unreadable("The file's sound cannot be read.", advice=formats)
        case _:
            return Unreadable("The file made its decoder fail.", advice=formats)
