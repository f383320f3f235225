"""MP3 that arrives in pieces becomes sound, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from gpuserver.domain import Floats, Pcm

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext


class Mp3Decoder:
    """Decodes a stream of MP3 frames, mono or stereo, into int16 mono. Sans-I/O."""

    def __init__(self) -> None:
        import av

        self._codec = cast("AudioCodecContext", av.CodecContext.create("mp3float", "r"))
        self._head: bytes | None = b""  # the stream's beginning, until it is known whether an ID3 tag opens it
        self._tag_left = 0  # bytes of the tag still to be skipped
        self.sample_rate = 0  # Hz; 0 before the first frame

    def decode(self, data: bytes) -> Pcm:
        """The sound that became complete with these bytes; int16 [n], n may be 0. Raises ValueError for what is no MP3."""
        return self._decode(self._skip_tag(data)) if data else np.zeros(0, np.int16)

    def finish(self) -> Pcm:
        """The sound that was held back."""
        return self._decode(None)

    def _decode(self, data: bytes | None) -> Pcm:
        import av

        sounds = []
        try:
            packets = self._codec.parse(data) if data else self._codec.parse()
            for packet in packets if data is not None else [*packets, None]:
                for frame in self._codec.decode(packet):
                    self.sample_rate = frame.sample_rate
                    sounds.append(_mono(frame.to_ndarray().astype(np.float32)))
        except av.FFmpegError as error:
            raise ValueError(f"not an MP3 frame: {error}") from error
        return np.concatenate(sounds) if sounds else np.zeros(0, np.int16)

    def _skip_tag(self, data: bytes) -> bytes:
        """Bytes without the ID3v2 tag (https://id3.org/id3v2.4.0-structure section 3.1) that may open the stream."""
        if self._head is not None:
            data = self._head = self._head + data
            if len(data) < 10 and data[:3] == b"ID3"[: len(data)]:
                return b""
            self._head = None
            if data[:3] == b"ID3":
                self._tag_left = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
        skipped = min(self._tag_left, len(data))
        self._tag_left -= skipped
        return data[skipped:]


def _mono(samples: Floats) -> Pcm:
    """float [channels, n] in -1..1 -> int16 [n]"""
    pcm: Pcm = np.clip(samples.mean(axis=0) * 32767, -32768, 32767).astype(np.int16)
    return pcm
