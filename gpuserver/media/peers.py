"""Who watches which session: one peer, and the next one on its way. The session's end ends both.

The old peer ends when the new one is connected, so that what is being said goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import structlog

from gpuserver.errors import SessionNotFound
from gpuserver.media.clock import Clock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice import remote_candidate
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peer import Peer
from gpuserver.media.sdp import MAX_CANDIDATES, read_offer
from gpuserver.media.tracks import Ticking
from gpuserver.pipeline.subscription import Subscription
from gpuserver.wire import IceCandidate, Offer

log = structlog.get_logger(__name__)


class Watched(Protocol):
    """What a peer needs of a session."""

    @property
    def session_id(self) -> str: ...

    def expect_viewer(self) -> None:
        """A peer is on its way."""
        ...

    def expect_viewer_no_longer(self) -> None:
        """It has arrived, and is attached, or it has given up."""
        ...

    def attach(self) -> None:
        """Somebody sees and hears the session now."""
        ...

    def detach(self) -> None:
        """Nobody does any more."""
        ...

    def subscribe(self) -> Subscription:
        """Ends when the session ends. Raises SessionNotFound if it has ended."""
        ...


@dataclass(slots=True, eq=False)
class _Line:
    """A session's connections. peers: answered, the newest last. early: candidates that came before their offer was answered."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while an offer is being answered
    early: deque[IceCandidate] = field(default_factory=lambda: deque(maxlen=MAX_CANDIDATES))
    peers: list[Peer] = field(default_factory=list)

    async def give_early_candidates(self, peer: Peer) -> None:
        """The peer's offer is answered."""
        while self.early:
            candidate = self.early.popleft()
            if peer.awaits(candidate):
                await peer.add_candidate(candidate)


class Peers:
    """The peers of all sessions. `async with` it: raises CannotStart if the network's ports cannot be bound."""

    def __init__(self, network: IceNetwork, clock: Clock, encoding: Encoding):
        self.network = network
        self._clock = clock
        self._encoding = encoding
        self._lines: dict[str, _Line] = {}
        self._watches: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Peers:
        self.network.ports.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def status(self) -> dict[str, object]:
        """For /health: how many sessions have a peer, and the network that they use."""
        return {"count": len(self), "network": self.network.status()}

    def __len__(self) -> int:
        """How many sessions have a peer, connected or on its way."""
        return sum(bool(line.peers) for line in self._lines.values())

    async def answer(self, session: Watched, playout: Ticking, offer: Offer) -> Offer:
        """Answer an offer: of a new peer, or, an ICE restart, of one that is connected.

        A peer that was answered before and has not connected is given up. Raises InvalidSdp, SessionNotFound.
        """
        readable = read_offer(offer)
        line = self._line(session)
        with _expected(session):
            async with line.lock, AsyncExitStack() as undo:
                if self._lines.get(session.session_id) is not line:
                    raise SessionNotFound("The session has ended.")
                for peer in line.peers:
                    if peer.continues(readable):
                        answer = await peer.restart(readable)
                        await line.give_early_candidates(peer)
                        return Offer(sdp=answer, type="answer")
                peer = self._make_peer(session, playout, line)
                undo.push_async_callback(peer.aclose)
                answer = await peer.answer(readable)
                for other in line.peers:
                    if not other.was_connected:
                        other.end()
                line.peers.append(peer)
                session.expect_viewer()
                await line.give_early_candidates(peer)
                undo.pop_all()
        return Offer(sdp=answer, type="answer")

    async def add_candidate(self, session: Watched, candidate: IceCandidate | None) -> None:
        """Take a candidate, before or after its offer; None says that there are no more. Raises InvalidInput."""
        if candidate is None or remote_candidate(candidate) is None:
            return
        line = self._line(session)
        if line.peers and not line.lock.locked() and line.peers[-1].awaits(candidate):
            await line.peers[-1].add_candidate(candidate)
        else:
            line.early.append(candidate)

    async def aclose(self) -> None:
        """End all peers."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self.network.ports.close()

    def _line(self, session: Watched) -> _Line:
        line = self._lines.get(session.session_id)
        if line is None:
            events = session.subscribe()
            line = self._lines[session.session_id] = _Line()
            watch = asyncio.create_task(self._end_with(events, session.session_id, line), name="session-end")
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
        return line

    async def _end_with(self, events: Subscription, session_id: str, line: _Line) -> None:
        """Close the session's peers when the session's events end."""
        try:
            async for _ in events:
                pass
        finally:
            await events.aclose()
            del self._lines[session_id]
            async with line.lock:
                await asyncio.gather(*(peer.aclose() for peer in line.peers))

    def _make_peer(self, session: Watched, playout: Ticking, line: _Line) -> Peer:
        def ended(peer: Peer) -> None:
            log.info("peer_ended", session_id=session.session_id)
            line.peers.remove(peer)
            if peer.was_connected:
                session.detach()
            else:
                session.expect_viewer_no_longer()

        def connected(peer: Peer) -> None:
            log.info("peer_connected", session_id=session.session_id)
            session.attach()
            session.expect_viewer_no_longer()
            for older in line.peers[: line.peers.index(peer)]:
                older.end()

        return Peer(playout, self._clock, self.network, self._encoding, on_connected=connected, on_ended=ended)


@contextmanager
def _expected(session: Watched) -> Iterator[None]:
    """Whatever becomes of the offer, the session has not been told in vain that a peer is on its way."""
    session.expect_viewer()
    try:
        yield
    finally:
        session.expect_viewer_no_longer()
