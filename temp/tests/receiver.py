"""A browser's stand-in: an aiortc client that offers to receive, connects for real over loopback and records what arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame
from numpy.typing import NDArray

AUDIBLE = 300  # of 32767; silence through Opus stays below 10


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedPicture:
    """arrived: time.monotonic seconds after decoding. pts: 90 kHz. luma: uint8 [height, width]."""

    arrived: float
    pts: int
    luma: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedSound:
    """arrived: time.monotonic seconds after decoding. pts: 48 kHz. pcm: int16 mono, 20 ms, or 40 ms of silence."""

    arrived: float
    pts: int
    pcm: NDArray[np.int16]

    @property
    def audible(self) -> bool:
        return bool(np.abs(self.pcm.astype(np.int32)).max() > AUDIBLE)


class Receiver:
    """`async with Receiver() as receiver: await receiver.connect(negotiate)`; then read pictures and sounds."""

    def __init__(self, *, keep_pictures: int = 500, configuration: RTCConfiguration | None = None) -> None:
        self.connection = RTCPeerConnection(configuration or RTCConfiguration(iceServers=[]))
        self.pictures: list[ReceivedPicture] = []
        self.sounds: list[ReceivedSound] = []
        self.connected_at: float | None = None
        self._keep_pictures = keep_pictures
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connection.add_listener("track", self._on_track)
        self.connection.add_listener("connectionstatechange", self._on_state)

    async def __aenter__(self) -> Receiver:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def offer(self) -> str:
        """The SDP of an offer to receive one picture and one sound."""
        self.connection.addTransceiver("audio", direction="recvonly")
        self.connection.addTransceiver("video", direction="recvonly")
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    async def connect(self, negotiate: Callable[[str], Awaitable[str]], *, within: float = 10.0) -> None:
        """Send the offer through `negotiate`, which gives the answer, and return once connected."""
        await self.accept(await negotiate(await self.offer()))
        await self.until(lambda: self.state == "connected", within=within)

    @property
    def state(self) -> str:
        return str(self.connection.connectionState)

    async def until(self, condition: Callable[[], bool], *, within: float = 10.0) -> None:
        """Wait for something that arrives or changes to make `condition` true. Raises TimeoutError."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(condition)

    async def aclose(self) -> None:
        """Ends the recorders too: a track of a connection that never came about does not end by itself."""
        await self.connection.close()
        recording = list(self._tasks)
        for task in recording:
            task.cancel()
        await asyncio.gather(*recording, return_exceptions=True)

    def sound_after(self, moment: float) -> list[ReceivedSound]:
        """What arrived after `moment` (time.monotonic seconds)."""
        return [sound for sound in self.sounds if sound.arrived > moment]

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._keep(self._record(track))

    def _on_state(self) -> None:
        if self.state == "connected":
            self.connected_at = time.monotonic()
        self._keep(self._notify())

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _record(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            now = time.monotonic()
            if isinstance(frame, VideoFrame):
                luma = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
                self.pictures.append(ReceivedPicture(now, frame.pts or 0, luma))
                del self.pictures[: -self._keep_pictures]
            elif isinstance(frame, AudioFrame):
                stereo = np.asarray(frame.to_ndarray(), np.int16).reshape(-1, len(frame.layout.channels))
                self.sounds.append(ReceivedSound(now, frame.pts or 0, stereo[:, 0].copy()))
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
