"""Peers against a receiver over loopback, with real ICE, DTLS and RTP."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from aiortc import RTCPeerConnection
from moving_avatar import moving_avatar
from receiver import Receiver
from watched_session import NothingLeft, WatchedSession, negotiation

from gpuserver.errors import InvalidInput, InvalidSdp, SessionNotFound, UpstreamFailed
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.ports import AnyPort
from gpuserver.media.sdp import MAX_LINES, answer_candidates, read_offer
from gpuserver.wire import IceCandidate, Offer
from soak.sdp_mutations import answer_mutations

CHROMIUM_CANDIDATE = IceCandidate(
    candidate="candidate:3301338274 1 udp 2113937151 7b7a6c3c-5463-4c0a-9973-6ee30d97d46e.local 45849 typ host generation 0",
    sdpMid="0",
    sdpMLineIndex=0,
)


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async with NothingLeft():
        encoding = Encoding(1)
        made = Peers(IceNetwork(AnyPort()), LoopClock(), encoding)
        yield made
        await made.aclose()
        await encoding.aclose()


def without_candidates(sdp: str) -> str:
    return re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", sdp)


def bar_position(luma: np.ndarray) -> float:
    columns = luma.mean(axis=0)
    return float(np.average(np.arange(len(columns)), weights=columns > 130))


async def test_moving_pictures_and_an_unbroken_sound_arrive(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await receiver.connect(negotiation(peers, session))
        await receiver.until(lambda: len(receiver.pictures) >= 25 and len(receiver.sounds) >= 50)
    positions = [bar_position(picture.luma) for picture in receiver.pictures[5:]]
    assert len({round(position) for position in positions}) > 5
    assert all(later.pts - earlier.pts == len(earlier.pcm) for earlier, later in itertools.pairwise(receiver.sounds))
    steps = [later.pts - earlier.pts for earlier, later in itertools.pairwise(receiver.pictures)]
    assert all(step % 3600 == 0 for step in steps)
    assert receiver.pictures[-1].luma.shape == (96, 128)
    assert not any(sound.audible for sound in receiver.sounds)
    assert session.notes[0] == "attach"


async def test_the_answer_sends_only_and_prefers_h264(peers: Peers) -> None:
    async with Receiver() as receiver:
        answer = await negotiation(peers, WatchedSession())(await receiver.offer())
    assert answer.count("a=sendonly") == 2
    assert "a=sendrecv" not in answer
    video = answer[answer.index("m=video") :]
    assert re.search(r"a=rtpmap:\d+ (\w+)/", video).group(1) == "H264"  # type: ignore[union-attr]


async def test_the_answer_carries_candidates_and_their_end(peers: Peers) -> None:
    async with Receiver() as receiver:
        answer = await negotiation(peers, WatchedSession())(await receiver.offer())
    assert "a=end-of-candidates" in answer
    candidates = answer_candidates(answer)
    assert candidates
    assert all(candidate.candidate.startswith("candidate:") for candidate in candidates)


async def test_a_browser_that_hides_its_addresses_connects(peers: Peers) -> None:
    """Chromium trickles mDNS names only; its own checks tell where it is."""
    session = WatchedSession()
    async with Receiver() as receiver:
        await peers.add_candidate(session, CHROMIUM_CANDIDATE)
        await receiver.connect(negotiation(peers, session, without_candidates))
        await peers.add_candidate(session, CHROMIUM_CANDIDATE)
        await peers.add_candidate(session, None)
        await receiver.until(lambda: len(receiver.pictures) > 2)


@pytest.mark.parametrize("when", ["before the offer", "after the offer"])
async def test_candidates_are_taken_before_and_after_the_offer(peers: Peers, when: str) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        sdp = await receiver.offer()
        candidates = answer_candidates(sdp)
        if when == "before the offer":
            for candidate in candidates:
                await peers.add_candidate(session, candidate)
        answer = await negotiation(peers, session, without_candidates)(sdp)
        if when == "after the offer":
            for candidate in candidates:
                await peers.add_candidate(session, candidate)
        # Our own candidates stay away from the receiver, so that only its candidates can bring the two together.
        await receiver.accept(without_candidates(answer))
        await receiver.until(lambda: receiver.state == "connected")


async def test_early_candidates_are_bounded(peers: Peers) -> None:
    session = WatchedSession()
    candidate = IceCandidate(candidate="candidate:1 1 udp 1 192.0.2.9 5000 typ host", sdpMid="0")
    for _ in range(1000):
        await peers.add_candidate(session, candidate)
    assert len(peers) == 0
    assert len(peers._lines["s1"].early) == 64


@pytest.mark.parametrize(
    "text",
    [
        "candidate:1 1 udp 1 192.0.2.9 0 typ host",
        "candidate:1 1 udp 1 192.0.2.9 70000 typ host",
        "candidate:1 1 udp 99999999999999 192.0.2.9 5000 typ host",
        "candidate:1 1 udp one 192.0.2.9 5000 typ host",
        "candidate:1 1 udp 1 example.org 5000 typ host",
        "candidate:1 1 udp",
        "hello",
    ],
)
async def test_a_malformed_candidate_is_refused(peers: Peers, text: str) -> None:
    session = WatchedSession()
    with pytest.raises(InvalidInput):
        await peers.add_candidate(session, IceCandidate(candidate=text, sdpMid="0"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:1 1 tcp 1 192.0.2.9 9 typ host tcptype active",
        "candidate:1 2 udp 1 192.0.2.9 5000 typ host",
        "candidate:1 1 udp 1 0.0.0.0 5000 typ host",
        "candidate:1 1 udp 1 224.0.0.1 5000 typ host",
        CHROMIUM_CANDIDATE.candidate,
    ],
)
async def test_a_candidate_that_is_of_no_use_is_ignored(peers: Peers, text: str) -> None:
    session = WatchedSession()
    await peers.add_candidate(session, IceCandidate(candidate=text, sdpMid="0"))
    assert "s1" not in peers._lines


async def test_a_new_offer_replaces_the_old_peer_and_the_loop_goes_on(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as first, Receiver() as second:
        await first.connect(negotiation(peers, session))
        await first.until(lambda: len(first.pictures) > 3)
        await second.connect(negotiation(peers, session))
        await first.until(lambda: first.state == "closed")
        await second.until(lambda: len(second.pictures) > 3)
        await asyncio.wait_for(session.detached.wait(), 5)
        assert session.notes == ["attach", "attach", "detach"]
        assert session.expected == 0
        assert len(peers) == 1
        assert session.playout.last is not None
        assert session.playout.last.number > 3
        session.events.close("deleted")
        await second.until(lambda: second.state == "closed")
        assert session.notes == ["attach", "attach", "detach", "detach"]


async def test_an_answered_peer_is_expected_until_it_connects(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        answer = await negotiation(peers, session)(await receiver.offer())
        assert (session.expected, session.notes) == (1, [])
        await receiver.accept(answer)
        await receiver.until(lambda: session.notes == ["attach"])
        assert session.expected == 0


async def test_a_new_offer_gives_up_a_peer_that_has_not_connected_and_keeps_one_that_has(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as watching, Receiver() as lost, Receiver() as lost_too:
        await watching.connect(negotiation(peers, session))
        for receiver in (lost, lost_too):
            await negotiation(peers, session)(await receiver.offer())
        seen = len(watching.sounds)
        await watching.until(lambda: len(watching.sounds) > seen + 50)
        assert session.notes == ["attach"]
        assert session.expected == 1
        assert len(peers._lines["s1"].peers) == 2


async def test_an_offer_that_cannot_be_answered_is_expected_no_longer(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        with pytest.raises(InvalidSdp):
            await negotiation(peers, session, lambda sdp: sdp.replace("VP8", "VP7").replace("H264", "H261"))(await receiver.offer())
    assert session.expected == 0


async def test_a_candidate_that_comes_while_its_offer_is_being_answered_waits_for_it(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as watching, Receiver() as receiver:
        await watching.connect(negotiation(peers, session))
        sdp = await receiver.offer()
        answering = asyncio.ensure_future(negotiation(peers, session, without_candidates)(sdp))
        await asyncio.sleep(0)
        for candidate in answer_candidates(sdp):
            await peers.add_candidate(session, candidate)
        await receiver.accept(without_candidates(await answering))
        await receiver.until(lambda: receiver.state == "connected")


async def test_an_offer_that_waits_while_its_session_ends_is_refused(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as first, Receiver() as second:
        offers = [await first.offer(), await second.offer()]
        answers = [asyncio.ensure_future(negotiation(peers, session)(offer)) for offer in offers]
        await asyncio.sleep(0)
        session.events.close("deleted")
        _, refused = await asyncio.gather(*answers, return_exceptions=True)
    assert isinstance(refused, SessionNotFound)


async def test_a_bad_offer_leaves_the_old_peer_alone(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await receiver.connect(negotiation(peers, session))
        with pytest.raises(InvalidSdp):
            await peers.answer(session, session.playout, Offer(sdp="v=0\r\n", type="offer"))
        seen = len(receiver.pictures)
        await receiver.until(lambda: len(receiver.pictures) > seen + 3)
    assert "detach" not in session.notes[:1]


async def test_a_browser_that_leaves_is_noticed(peers: Peers) -> None:
    session = WatchedSession()
    async with Receiver() as receiver:
        await receiver.connect(negotiation(peers, session))
    async with asyncio.timeout(5):
        await session.detached.wait()
    assert len(peers) == 0


async def test_a_receiver_that_closes_before_it_is_connected_ends(peers: Peers) -> None:
    async with asyncio.timeout(5), Receiver() as receiver:
        await receiver.accept(without_candidates(await negotiation(peers, WatchedSession())(await receiver.offer())))


async def test_a_browser_that_never_comes_is_given_up(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.media.peer.CONNECT_SECONDS", 0.05)
    session = WatchedSession()
    async with Receiver() as receiver:
        await negotiation(peers, session)(await receiver.offer())
        (peer,) = peers._lines["s1"].peers
        assert peer._watch is not None
        async with asyncio.timeout(5):
            await peer._watch
    assert len(peers) == 0
    assert session.notes == []
    assert session.expected == 0


async def test_a_negotiation_that_hangs_is_cut_off(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: RTCPeerConnection) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RTCPeerConnection, "createAnswer", never)
    monkeypatch.setattr("gpuserver.media.peer.NEGOTIATION_SECONDS", 0.1)
    async with Receiver() as receiver:
        with pytest.raises(InvalidSdp, match="within"):
            await negotiation(peers, WatchedSession())(await receiver.offer())
    assert len(peers) == 0


async def test_a_machine_without_an_address_says_so(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver:
        offer = await receiver.offer()
        monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: [])
        with pytest.raises(UpstreamFailed, match="no network address"):
            await negotiation(peers, WatchedSession())(offer)
    assert len(peers) == 0


async def test_a_close_that_hangs_leaves_no_socket_open(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: RTCPeerConnection) -> None:
        await asyncio.Event().wait()

    session = WatchedSession()
    async with Receiver() as receiver:
        await negotiation(peers, session)(await receiver.offer())
        connection = peers._lines["s1"].peers[0]._connection
        monkeypatch.setattr(RTCPeerConnection, "close", never)
        monkeypatch.setattr("gpuserver.media.peer.CLOSE_SECONDS", 0.05)
        await peers.aclose()
        monkeypatch.undo()
        states = {transceiver.receiver.transport.transport.state for transceiver in connection.getTransceivers()}
    assert states == {"closed"}
    await connection.close()


async def test_an_answer_is_not_an_offer(peers: Peers) -> None:
    with pytest.raises(InvalidSdp, match="only an offer"):
        await peers.answer(WatchedSession(), Playout(moving_avatar()), Offer(sdp="v=0", type="answer"))


def test_too_many_lines_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(InvalidSdp, match="lines"):
        read_offer(Offer(sdp="a=x\n" * (MAX_LINES + 1), type="offer"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda sdp: sdp.replace("a=recvonly", "a=sendonly"), "must be able to receive"),
        (lambda sdp: sdp.replace("a=recvonly", "a=inactive"), "must be able to receive"),
        (lambda sdp: re.sub(r"m=video.*", "", sdp, flags=re.DOTALL), "one audio and one video"),
        (lambda sdp: sdp + sdp[sdp.index("m=video") :], "one audio and one video"),
        (lambda sdp: sdp.replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (lambda sdp: re.sub(r"a=fingerprint.*\r\n", "", sdp), "fingerprint"),
        (lambda sdp: re.sub(r"a=setup.*\r\n", "", sdp), "a=setup"),
        (lambda sdp: re.sub(r"a=ice-pwd.*\r\n", "", sdp), "ice-ufrag"),
        (lambda sdp: re.sub(r"a=group.*\r\n", "", sdp), "BUNDLE"),
        (lambda sdp: re.sub(r"a=mid:1\r\n", "a=mid:0\r\n", sdp), "a=mid"),
        (lambda sdp: sdp.replace("a=extmap:1 ", "a=extmap:999 "), "header extension"),
        (lambda sdp: sdp.replace("VP8", "VP7").replace("H264", "H261"), "codec"),
        (lambda sdp: sdp.replace("m=video", "m=video x"), "cannot be parsed"),
    ],
)
async def test_an_offer_that_cannot_work_is_refused_in_plain_words(peers: Peers, change: Callable[[str], str], sentence: str) -> None:
    async with Receiver() as receiver:
        with pytest.raises(InvalidSdp, match=sentence):
            await negotiation(peers, WatchedSession(), change)(await receiver.offer())
    assert len(peers) == 0


async def test_mutated_offers_are_answered_or_refused_and_leave_nothing(peers: Peers) -> None:
    async with Receiver() as receiver:
        outcomes = await answer_mutations(peers, moving_avatar(), await receiver.offer(), 60, random.Random(2026))
    assert set(outcomes) == {"answered", "refused"}
