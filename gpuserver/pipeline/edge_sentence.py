"""One request to the service behind edge-tts: MP3 and word boundaries arrive, sound with its visemes goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from gpuserver.domain import Pcm
from gpuserver.errors import VoiceUnreachable
from gpuserver.pipeline.announced_speech import AnnouncedSpeech, SoundPiece
from gpuserver.pipeline.language import has_words
from gpuserver.pipeline.mp3 import Mp3Decoder
from gpuserver.pipeline.patient_reader import PatientReader
from gpuserver.pipeline.phonemes import TimedPhoneme

if TYPE_CHECKING:
    from edge_tts.typing import TTSChunk

FIRST_SOUND_SECONDS = 2.5
NEXT_SOUND_SECONDS = 5.0
FIRST_HOLD_SECONDS = 0.02  # how long the first sound waits for the announcement of its word
HOLD_SECONDS = 0.15  # and later sound, which is ahead of what is being played
TICKS_PER_SECOND = 10_000_000  # the unit of the service's boundaries
MISSING_SECONDS = 0.25  # sound that may be missing at the end before the sentence counts as cut

Pronounce = Callable[[str, float], Sequence[TimedPhoneme]]  # a word and its seconds -> its phonemes; called in a thread


class EdgeSentence:
    """text: at most 4096 bytes as XML; rate: 1.0 is normal. pronounce None: the lips are to follow the sound."""

    def __init__(self, text: str, voice: str, rate: float, pronounce: Pronounce | None):
        import edge_tts

        percent = f"{round((rate - 1) * 100):+d}%"
        self._call = edge_tts.Communicate(text, voice, rate=percent, boundary="WordBoundary", connect_timeout=2)
        self._pronounce = pronounce
        self._decoder = Mp3Decoder()
        self._speech = AnnouncedSpeech(with_lips=pronounce is not None)
        self._unannounced = text
        self._promised = 0.0  # where the last announced word ends, in seconds
        self._heard = 0.0  # seconds of sound

    async def sound(self) -> AsyncGenerator[SoundPiece, None]:
        """The sentence as it arrives. Raises TimeoutError, VoiceUnreachable where it is cut, and what the client raises.

        A connection that closes early is no error to the client. That the service has said "turn.end" shows in the client's count of
        bytes since then, and that this was all of the sound in the boundaries.
        """
        patience = _Patience(self._speech)
        async with aclosing(PatientReader(self._call.stream())) as messages:
            while True:
                try:
                    message = await messages.next(patience.seconds())
                except TimeoutError:
                    if not self._speech.holds:
                        raise
                    piece = self._speech.take(waited_enough=True)
                else:
                    if message is None:
                        break
                    await self._take(message)
                    piece = self._speech.take()
                if piece is not None:
                    patience.renew()
                    yield piece
        self._add_sound(self._decoder.finish())
        self._speech.complete()
        if (piece := self._speech.take(waited_enough=True)) is not None:
            yield piece
        if self._call.state["chunk_audio_bytes"] or not self._speech.begun or self._heard < self._promised - MISSING_SECONDS:
            raise VoiceUnreachable("edge-tts ended the sentence in the middle.")

    async def _take(self, message: TTSChunk) -> None:
        if message["type"] == "audio":
            self._add_sound(self._decoder.decode(message["data"]))
            return
        start, seconds, word = message["offset"] / TICKS_PER_SECOND, message["duration"] / TICKS_PER_SECOND, message["text"]
        self._promised = start + seconds
        if self._pronounce is not None:
            self._speech.announce(start, await asyncio.to_thread(self._pronounce, word, seconds))
            self._unannounced = self._unannounced.partition(word)[2]
            if not has_words(self._unannounced):
                self._speech.complete()

    def _add_sound(self, pcm: Pcm) -> None:
        if len(pcm):
            self._heard += len(pcm) / self._decoder.sample_rate
            self._speech.add_sound(pcm, self._decoder.sample_rate)


class _Patience:
    """How long the next message may take, given what has come."""

    def __init__(self, speech: AnnouncedSpeech):
        self._speech = speech
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._held_since: float | None = None

    def renew(self) -> None:
        """A piece of sound has gone on."""
        self._held_since = None

    def seconds(self) -> float:
        now = self._clock()
        if self._speech.holds:
            self._held_since = now if self._held_since is None else self._held_since
            return self._held_since + (HOLD_SECONDS if self._speech.begun else FIRST_HOLD_SECONDS) - now
        return NEXT_SOUND_SECONDS if self._speech.begun else self._began + FIRST_SOUND_SECONDS - now
