"""Who watches which session: at most one peer per session; a new offer replaces the old peer."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiortc import RTCConfiguration

from gpuserver.media.clock import Clock
from gpuserver.media.ice import remote_candidate
from gpuserver.media.peer import Peer
from gpuserver.media.sdp import MAX_CANDIDATES, read_offer
from gpuserver.media.tracks import Ticking
from gpuserver.wire import IceCandidate, Offer

log = structlog.get_logger(__name__)


class Watched(Protocol):
    """What a peer needs of a session."""

    @property
    def session_id(self) -> str: ...

    def attach(self) -> None:
        """Somebody sees and hears the session now."""
        ...

    def detach(self) -> None:
        """Nobody does any more."""
        ...


@dataclass(slots=True, eq=False)
class _Line:
    """A session's connection: its peer, and candidates that came before their offer."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    early: deque[IceCandidate] = field(default_factory=lambda: deque(maxlen=MAX_CANDIDATES))
    peer: Peer | None = None


class Peers:
    """The peers of all sessions."""

    def __init__(self, configuration: RTCConfiguration, clock: Clock):
        self._configuration = configuration
        self._clock = clock
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many sessions have a peer, connected or on its way."""
        return sum(line.peer is not None for line in self._lines.values())

    async def answer(self, session: Watched, playout: Ticking, offer: Offer) -> Offer:
        """Answer an offer; the session's old peer is closed once the offer has been found sound. Raises InvalidSdp."""
        readable = read_offer(offer)
        line = self._lines.setdefault(session.session_id, _Line())
        async with line.lock, AsyncExitStack() as undo:
            if line.peer is not None:
                await line.peer.aclose()
            peer = self._make_peer(session, playout, line)
            undo.push_async_callback(peer.aclose)
            answer = await peer.answer(readable)
            line.peer = peer
            for candidate in line.early:
                if peer.awaits(candidate):
                    await peer.add_candidate(candidate)
            line.early.clear()
            undo.pop_all()
        return Offer(sdp=answer, type="answer")

    async def add_candidate(self, session_id: str, candidate: IceCandidate | None) -> None:
        """Take a candidate, before or after its offer; None says that there are no more. Raises InvalidInput."""
        if candidate is None or remote_candidate(candidate) is None:
            return
        line = self._lines.setdefault(session_id, _Line())
        if line.peer is not None and line.peer.awaits(candidate):
            await line.peer.add_candidate(candidate)
        else:
            line.early.append(candidate)

    async def close(self, session_id: str) -> None:
        """End a session's peer, if it has one."""
        line = self._lines.pop(session_id, None)
        if line is None:
            return
        async with line.lock:
            if line.peer is not None:
                await line.peer.aclose()

    async def aclose(self) -> None:
        """End all peers."""
        await asyncio.gather(*[self.close(session_id) for session_id in list(self._lines)])

    def _make_peer(self, session: Watched, playout: Ticking, line: _Line) -> Peer:
        def ended() -> None:
            log.info("peer_ended", session_id=session.session_id)
            line.peer = None
            session.detach()

        def connected() -> None:
            log.info("peer_connected", session_id=session.session_id)
            session.attach()

        return Peer(playout, self._clock, self._configuration, on_connected=connected, on_ended=ended)
