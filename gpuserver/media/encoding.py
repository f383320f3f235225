"""What all connections of this process share: a few threads that encode pictures, encoded idle loops, and who counts what is sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gpuserver.domain import Avatar
from gpuserver.media.bitrate import Bitrate
from gpuserver.media.idle_stream import IdleStreams
from gpuserver.media.picture_encoders import CODECS
from gpuserver.media.picture_stream import PictureStream

# Told of every piece that is sent: its kind ("video", "audio"), how late it is (seconds), how many before it were left out.
NotePiece = Callable[[str, float, int], None]


def unheeded(_kind: str, _lateness: float, _left_out: int) -> None:
    """Nobody counts."""


class Encoding:
    """One thread per core by default. Every connection has one picture in work at most, so what waits is bounded by their number."""

    def __init__(self, threads: int | None = None, *, note: NotePiece = unheeded):
        self.note = note
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="encode")
        self._loops = IdleStreams()

    def stream(self, avatar: Avatar, mime_type: str, bitrate: Bitrate) -> PictureStream:
        """The pictures of a new connection."""
        return PictureStream(avatar, mime_type, self._loops, self._pool, bitrate)

    def expect(self, avatar: Avatar) -> None:
        """Somebody is about to connect: the idle loop is encoded meanwhile, in the codec that most browsers offer."""
        self._loops.get(avatar, CODECS[0])

    async def prepare(self, avatar: Avatar, mime_type: str) -> None:
        """Returns when the avatar's idle loop has been encoded, or could not be."""
        await self._loops.encoded(avatar, mime_type)

    async def aclose(self) -> None:
        """To be called when no connection is left."""
        await self._loops.aclose()
        await asyncio.to_thread(self._pool.shutdown)
