"""Sessions that live as long as their peer, for clients that connect and go without a word: LiveTalking's pages and WHEP players."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from gpuserver.errors import SessionNotFound
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.sdp import read_offer
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.pipeline.subscription import Subscription
from gpuserver.wire import CreateSession, Offer

NOBODY_WATCHES = "nobody watches"

log = structlog.get_logger(__name__)


class WatchedSessions:
    """Opens such sessions and ends each when its peer has gone or does not come."""

    def __init__(self, registry: SessionRegistry, peers: Peers):
        self._registry = registry
        self._peers = peers
        self._endings: set[asyncio.Task[None]] = set()

    async def open(self, request: CreateSession, offer: Offer, *, session_id: str | None = None) -> tuple[Session, Offer]:
        """A new session, under this id if one is given, and the answer to the offer of its peer.

        Raises InvalidSdp, Full, AvatarNotFound, AvatarDamaged.
        """
        read_offer(offer)  # what cannot be answered takes no slot
        session = await self._registry.create(request, session_id=session_id)
        answer = await self._peers.answer(_Watched(session, self._end), cast(Playout, session.stage), offer)
        return session, answer

    async def aclose(self) -> None:
        """Wait for the sessions that are being ended."""
        await asyncio.gather(*self._endings)

    def _end(self, session: Session) -> None:
        ending = asyncio.create_task(self._delete(session), name="session-end")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _delete(self, session: Session) -> None:
        try:
            await self._registry.delete(session.session_id, NOBODY_WATCHES)
        except SessionNotFound:
            log.debug("session_ended_by_itself", session_id=session.session_id)


class _Watched:
    """Implements media.peers.Watched: counts who watches or is on the way; when nobody is left, the session ends."""

    def __init__(self, session: Session, end: Callable[[Session], None]):
        self._session = session
        self._end = end
        self._watchers = 0

    @property
    def session_id(self) -> str:
        return self._session.session_id

    def subscribe(self) -> Subscription:
        return self._session.subscribe()

    def expect_viewer(self) -> None:
        self._watchers += 1
        self._session.expect_viewer()

    def expect_viewer_no_longer(self) -> None:
        self._session.expect_viewer_no_longer()
        self._leave()

    def attach(self) -> None:
        self._watchers += 1
        self._session.attach()

    def detach(self) -> None:
        self._session.detach()
        self._leave()

    def _leave(self) -> None:
        self._watchers -= 1
        if self._watchers == 0:
            self._end(self._session)
