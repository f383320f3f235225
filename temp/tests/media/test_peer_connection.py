"""Our peer connection where aiortc's own would fail."""

from __future__ import annotations

import asyncio
import gc
import re

import pytest
from aiortc import RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp
from receiver import Receiver
from watched_session import NothingLeft

from gpuserver.media.ice_connection import MAX_PAIRS, IceNetwork
from gpuserver.media.peer_connection import PeerConnection
from gpuserver.media.ports import AnyPort


async def test_a_browser_that_leaves_while_it_connects_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting, closed = asyncio.Event(), asyncio.Event()

    async def start(_parameters: object) -> None:
        """As RTCIceTransport's for the second section, after the first one has waited for a handshake that never came."""
        connecting.set()
        await closed.wait()
        raise InvalidStateError("RTCIceTransport is closed")

    async with Receiver() as receiver:
        offer = await receiver.offer()
    async with NothingLeft():
        connection = PeerConnection(IceNetwork(AnyPort()))
        for kind in ("audio", "video"):
            connection.addTransceiver(kind, direction="sendonly")
        await connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        for transceiver in connection.getTransceivers():
            monkeypatch.setattr(transceiver.receiver.transport.transport, "start", start)
        await connection.setLocalDescription(await connection.createAnswer())
        async with asyncio.timeout(10):
            await connecting.wait()
        await connection.close()
        closed.set()
        del connection, transceiver
        monkeypatch.undo()
        await asyncio.sleep(0)
        gc.collect()  # a task's failure is told when the task is forgotten


async def test_candidates_without_end_take_no_room_without_end() -> None:
    async with Receiver() as receiver:
        offer = await receiver.offer()
    connection = PeerConnection(IceNetwork(AnyPort()))
    await connection.setRemoteDescription(RTCSessionDescription(sdp=re.sub("a=candidate:.*\r\n", "", offer), type="offer"))
    for port in range(1, 3 * MAX_PAIRS):
        candidate = candidate_from_sdp(f"1 1 udp 1 192.0.2.1 {port} typ host")
        candidate.sdpMLineIndex = 0
        await connection.addIceCandidate(candidate)
    assert connection.remoteDescription.sdp.count("a=candidate:") == MAX_PAIRS
    await connection.close()
