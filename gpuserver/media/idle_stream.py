"""An avatar's idle loop, encoded once per codec and sent to every session that idles: sending it costs no encoding."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import structlog

from gpuserver.domain import FPS, Avatar
from gpuserver.media.payloads import Payloads
from gpuserver.media.picture_encoders import loop_encoder

KEY_EVERY = 3 * FPS  # how long a session at most encodes live until it can join the loop

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class IdleStream:
    """The loop forth and back, ready for RTP. Unit n can follow unit n - 1; the first, and every 75th, is a key frame."""

    units: tuple[Payloads, ...]
    bitrate: int  # bit/s of its busiest three seconds

    def phase(self, position: int) -> int:
        """The unit that shows the loop's `position`."""
        return position % len(self.units)

    def since_key(self, phase: int) -> int:
        """How many units ago a receiver that has seen none of the loop could have begun; 0 is this unit."""
        return phase % KEY_EVERY


class IdleStreams:
    """The encoded loops of this process; made in a thread of their own when they are first asked for.

    A loop, 2 to 8 MB for a minute of 512x512, is kept as long as somebody else holds its avatar: the pictures of one that was deleted
    take room on the disk until nobody does.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="idle-loop")
        self._known: WeakKeyDictionary[Avatar, dict[str, asyncio.Future[IdleStream | None]]] = WeakKeyDictionary()
        self._closed = False

    def get(self, avatar: Avatar, mime_type: str) -> IdleStream | None:
        """The loop; None while it is being encoded, or if it could not be."""
        future = self._future(avatar, mime_type)
        return future.result() if future.done() and not future.cancelled() and future.exception() is None else None

    async def encoded(self, avatar: Avatar, mime_type: str) -> None:
        """Returns when the loop has been encoded, or could not be."""
        await asyncio.wait([self._future(avatar, mime_type)])

    async def aclose(self) -> None:
        """Give up what is being encoded."""
        self._closed = True
        for futures in self._known.values():
            for future in futures.values():
                future.cancel()
        self._known.clear()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _future(self, avatar: Avatar, mime_type: str) -> asyncio.Future[IdleStream | None]:
        futures = self._known.setdefault(avatar, {})
        if mime_type not in futures:
            futures[mime_type] = asyncio.get_running_loop().run_in_executor(self._pool, self._encode, avatar, mime_type)
            futures[mime_type].add_done_callback(_log_failure)
        return futures[mime_type]

    def _encode(self, avatar: Avatar, mime_type: str) -> IdleStream | None:
        encoder = loop_encoder(mime_type, avatar.width, avatar.height, KEY_EVERY)
        units: list[Payloads] = []
        period = max(1, 2 * len(avatar.frames) - 2)
        for position in range(period * math.ceil(KEY_EVERY / period)):  # a short loop goes round until a key frame is worth its bits
            if self._closed:
                return None
            units.append(encoder.encode(avatar.frame_at(position).picture, key=position % KEY_EVERY == 0))
        sizes = [sum(map(len, unit)) for unit in units]
        busiest = max(sum(sizes[start : start + KEY_EVERY]) / min(KEY_EVERY, len(sizes)) for start in range(0, len(sizes), KEY_EVERY))
        return IdleStream(tuple(units), round(busiest * 8 * FPS))


def _log_failure(future: asyncio.Future[IdleStream | None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("idle_loop_not_encoded", error=repr(error))
