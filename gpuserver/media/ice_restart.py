"""Another way through the network for a connection that goes on: what a browser asks for with restartIce(). RFC 8445, section 9.

aiortc has no ICE restart. test_aiortc_guard.py fails when a name used here changes.
"""

from __future__ import annotations

import asyncio
from typing import cast

import structlog
from aiortc import RTCIceCandidate, RTCIceParameters, RTCIceTransport
from aiortc.rtcicetransport import candidate_from_aioice, candidate_to_aioice

from gpuserver.media.ice_connection import IceConnection, IceNetwork
from gpuserver.media.peer_connection import use_connection

SEARCH_SECONDS = 30.0

log = structlog.get_logger(__name__)


class IceRestart:
    """A search with new names and passwords on both sides. DTLS, SRTP and the streams stay where they are until it has found a way."""

    def __init__(self, transport: RTCIceTransport, network: IceNetwork, username_fragment: str, password: str):
        before = transport._connection
        self._transport = transport
        self._connection = IceConnection(network, None, None)
        self._connection.ice_controlling, self._connection.remote_is_lite = before.ice_controlling, before.remote_is_lite
        self._connection.remote_username, self._connection.remote_password = username_fragment, password
        self._search: asyncio.Task[None] | None = None
        self._found = False

    @property
    def parameters(self) -> RTCIceParameters:
        """Our own new name and password."""
        return RTCIceParameters(usernameFragment=self._connection.local_username, password=self._connection.local_password)

    @property
    def candidates(self) -> list[RTCIceCandidate]:
        """Our own, once begun."""
        return [candidate_from_aioice(candidate) for candidate in self._connection.local_candidates]

    async def begin(self) -> None:
        """Gather our candidates and begin to search. Raises NoFreePort."""
        await self._connection.gather_candidates()
        self._search = asyncio.create_task(self._find(), name="ice-restart")

    async def add_candidate(self, candidate: RTCIceCandidate) -> None:
        """One of the browser's."""
        await self._connection.add_remote_candidate(candidate_to_aioice(candidate))

    async def aclose(self) -> None:
        """Give the search up; what it has found stays in use."""
        if self._search is not None:
            if not self._found:
                self._search.cancel()
            await asyncio.wait([self._search])
        if not self._found:
            await self._connection.close()

    async def _find(self) -> None:
        try:
            async with asyncio.timeout(SEARCH_SECONDS):
                await self._connection.connect()
        except (ConnectionError, TimeoutError):
            log.info("ice_restart_failed")
            await self._connection.close()
            return
        before = cast(IceConnection, self._transport._connection)
        self._connection.take_over(before)
        use_connection(self._transport, self._connection)
        self._found = True
        log.info("ice_restarted")
        await before.close()
