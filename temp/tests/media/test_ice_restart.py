"""A browser asks for another way through the network: its connection, its sound and its pictures go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aioice import Candidate, Connection
from aiortc import RTCIceTransport
from receiver import Receiver
from watched_session import NothingLeft, WatchedSession, negotiation

from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceConnection, IceNetwork
from gpuserver.media.peer_connection import use_connection
from gpuserver.media.peers import Peers
from gpuserver.media.ports import AnyPort
from gpuserver.media.sdp import answer_candidates, read_offer
from gpuserver.wire import Offer


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async with NothingLeft():
        encoding = Encoding(1)
        made = Peers(IceNetwork(AnyPort()), LoopClock(), encoding)
        yield made
        await made.aclose()
        await encoding.aclose()


def transport_of(connection: Receiver) -> RTCIceTransport:
    return connection.connection.getTransceivers()[0].receiver.transport.transport


def with_ice(sdp: str, connection: Connection) -> str:
    """The receiver's offer as it would be after restartIce(), without candidates."""
    named = re.sub(r"a=ice-ufrag:.*\r\n", f"a=ice-ufrag:{connection.local_username}\r\n", sdp)
    named = re.sub(r"a=ice-pwd:.*\r\n", f"a=ice-pwd:{connection.local_password}\r\n", named)
    return re.sub(r"a=candidate:.*\r\n", "", named)


async def watch(receiver: Receiver, peers: Peers, session: WatchedSession) -> None:
    """Returns when both sides are connected."""
    await receiver.connect(negotiation(peers, session))
    await receiver.until(lambda: len(receiver.pictures) > 3)


async def connect_to(answer: str, connection: Connection) -> None:
    theirs = read_offer(Offer(sdp=answer.replace("a=sendonly", "a=sendrecv"), type="offer"))
    connection.remote_username, connection.remote_password = theirs.username_fragment, theirs.password
    for candidate in answer_candidates(answer):
        if candidate.sdpMLineIndex == 0:
            await connection.add_remote_candidate(Candidate.from_sdp(candidate.candidate.removeprefix("candidate:")))
    await connection.connect()


async def test_sound_and_pictures_go_on_over_the_new_way(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await watch(receiver, peers, session)
        before = cast(IceConnection, transport_of(receiver)._connection)
        server_before = peers._lines["s1"].peers[0]._transport._connection
        after = Connection(ice_controlling=True)
        await after.gather_candidates()
        offer = with_ice(receiver.connection.localDescription.sdp, after)
        await connect_to(await negotiation(peers, session)(offer), after)
        IceConnection.take_over(cast(IceConnection, after), before)
        use_connection(transport_of(receiver), cast(IceConnection, after))
        await before.close()
        pictures, sounds = len(receiver.pictures), len(receiver.sounds)
        await receiver.until(lambda: len(receiver.pictures) > pictures + 25 and len(receiver.sounds) > sounds + 25)
        assert receiver.state == "connected"
        assert session.notes == ["attach"]
        assert len(peers._lines["s1"].peers) == 1
        assert server_before._closed, "the old way is given up"
    async with asyncio.timeout(5):
        await session.detached.wait()


async def test_a_new_way_that_is_not_found_leaves_the_old_one_alone(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await watch(receiver, peers, session)
        for _ in range(3):
            nowhere = Connection(ice_controlling=True)
            answer = await negotiation(peers, session)(with_ice(receiver.connection.localDescription.sdp, nowhere))
            assert answer_candidates(answer)
        seen = len(receiver.pictures)
        await receiver.until(lambda: len(receiver.pictures) > seen + 3)
        assert len(peers._lines["s1"].peers) == 1


async def test_a_search_is_given_up(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.media.ice_restart.SEARCH_SECONDS", 0.05)
    session = WatchedSession()
    async with Receiver() as receiver:
        await watch(receiver, peers, session)
        await negotiation(peers, session)(with_ice(receiver.connection.localDescription.sdp, Connection(ice_controlling=True)))
        (peer,) = peers._lines["s1"].peers
        assert peer._restart is not None and peer._restart._search is not None
        async with asyncio.timeout(5):
            await peer._restart._search
        assert peer._restart._connection._closed
        seen = len(receiver.pictures)
        await receiver.until(lambda: len(receiver.pictures) > seen + 3)


async def test_another_connection_with_the_same_certificate_is_not_taken_for_a_restart(peers: Peers) -> None:
    """Its DTLS begins anew."""
    session = WatchedSession()
    async with Receiver() as receiver:
        await watch(receiver, peers, session)
        other = with_ice(receiver.connection.localDescription.sdp, Connection(ice_controlling=True)).replace("o=- ", "o=- 9")
        await negotiation(peers, session)(other)
        assert len(peers._lines["s1"].peers) == 2


async def test_the_answer_keeps_everything_but_the_way(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await watch(receiver, peers, session)
        first = receiver.connection.remoteDescription.sdp
        second = await negotiation(peers, session)(with_ice(receiver.connection.localDescription.sdp, Connection(ice_controlling=True)))
    assert version(second) == version(first) + 1
    assert stripped(second) == stripped(first)
    assert re.findall("a=ice-ufrag:.*", second) != re.findall("a=ice-ufrag:.*", first)


def version(sdp: str) -> int:
    """Of the description: the third field of the o= line."""
    [line] = [line for line in sdp.splitlines() if line.startswith("o=")]
    return int(line.split()[2])


def stripped(sdp: str) -> list[str]:
    """The lines that an ICE restart leaves alone."""
    return [line for line in sdp.splitlines() if not re.match(r"o=|m=|c=|a=rtcp:|a=ice-|a=candidate", line)]
