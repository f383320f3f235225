"""A WAV file that arrives in pieces becomes sound, piece by piece, headerless PCM too; and how one begins that is sent in pieces."""

from __future__ import annotations

import struct

import numpy as np

from gpuserver.domain import Pcm

HEADERLESS_RATE = 24_000  # Hz, mono: what OpenAI's "pcm" means
LONGEST_HEADER = 65_536  # bytes before the sound, tags included
OPEN_ENDED = 0x7FFFFF00  # a stream whose length is not known when it begins announces 0, or as much as the field can hold
_PCM, _EXTENSIBLE = 1, 0xFFFE
_UNKNOWN = 0xFFFFFFFF


def open_ended_header(sample_rate: int) -> bytes:
    """What comes before the sound of a WAV file, 16-bit mono, whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, sample_rate, 2 * sample_rate, 2, 16)
    return b"RIFF" + struct.pack("<I", _UNKNOWN) + b"WAVE" + form + b"data" + struct.pack("<I", _UNKNOWN)


class WavDecoder:
    """Decodes 16-bit PCM, mono or more channels, into int16 mono. Sans-I/O.

    The layout is that of RIFF/WAVE, https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""  # what came before the sound; None once the sound has begun
        self._rest = b""  # an incomplete sample
        self._channels = 1
        self._announced = 0  # bytes of sound, 0 where unknown
        self._received = 0
        self.sample_rate = 0  # Hz; 0 before the sound begins

    def decode(self, data: bytes) -> Pcm:
        """The sound that became complete with these bytes; int16 [n], n may be 0. Raises ValueError for what is no such sound."""
        if self._head is not None:
            self._head += data
            begin = self._find_sound(self._head)
            if begin is None:
                return np.zeros(0, np.int16)
            data, self._head = self._head[begin:], None
        if self._announced:
            data = data[: self._announced - self._received]  # tags may follow the sound
        self._received += len(data)
        data = self._rest + data
        whole = len(data) - len(data) % (2 * self._channels)
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2")
        return samples if self._channels == 1 else samples.reshape(-1, self._channels).mean(axis=1).astype(np.int16)

    def finish(self) -> None:
        """Nothing more comes. Raises ValueError where the sound is shorter than announced, or never began."""
        if self._head is not None:
            raise ValueError("the sound never begins")
        if self._received < self._announced:
            raise ValueError("the sound is shorter than announced")

    def _find_sound(self, head: bytes) -> int | None:
        """Where the sound begins; None while that is not known."""
        if len(head) < 12 and b"RIFF".startswith(head[:4]):
            return None
        if head[:4] != b"RIFF":
            self.sample_rate = HEADERLESS_RATE
            return 0
        if head[8:12] != b"WAVE":
            raise ValueError("a RIFF file that is no WAVE")
        at = 12
        while at + 8 <= len(head):
            name, size = struct.unpack_from("<4sI", head, at)
            at += 8
            if name == b"data":
                if not self.sample_rate:
                    raise ValueError("a WAVE file without a format")
                self._announced = 0 if size >= OPEN_ENDED else size
                return at
            if name == b"fmt " and at + 16 <= len(head):
                self._read_format(head[at : at + 16])
            at += size + size % 2
        if at > LONGEST_HEADER or len(head) > LONGEST_HEADER:
            raise ValueError("a WAVE file without sound")
        return None

    def _read_format(self, chunk: bytes) -> None:
        code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk)
        if code not in {_PCM, _EXTENSIBLE} or bits != 16 or not 1 <= channels <= 8 or not 8_000 <= rate <= 96_000:
            raise ValueError(f"a WAVE file that is not 16-bit PCM (format {code}, {bits} bits, {channels} channels, {rate} Hz)")
        self._channels, self.sample_rate = channels, rate
