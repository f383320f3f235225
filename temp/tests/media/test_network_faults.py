"""A call over a bad network: the sound stays whole, the picture comes back, and a client that vanished is noticed."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
from aiortc.rtp import RtpPacket
from moving_avatar import moving_avatar
from receiver import ReceivedPicture, Receiver
from udp_relay import Network, UdpRelay

from gpuserver.domain import SAMPLE_RATE, Generation, Pcm
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peer import Peer
from gpuserver.media.playout import PlayedFrame
from gpuserver.media.ports import AnyPort
from gpuserver.media.sdp import read_offer
from gpuserver.wire import Offer

BAD = Network(loss=0.05, delay=0.1, jitter=0.03)
HUM = (6000 * np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 250 / SAMPLE_RATE)).astype(np.int16).reshape(-1, 1920)
CANDIDATES = re.compile(r"a=(candidate:.*|end-of-candidates)\r\n")
TAKE_PACKET = "_handle_rtp_packet"  # of aiortc's receiver


class HummingPlayout:
    """Always speaks, and a bar moves over the picture."""

    def __init__(self) -> None:
        self.avatar = moving_avatar()
        self.epoch = time.monotonic()
        self._generation = Generation(1)

    def tick(self, number: int) -> PlayedFrame:
        picture = np.roll(self.avatar.frame_at(number).picture, 3, axis=1)
        return PlayedFrame(number, number, picture, HUM[number % len(HUM)], self._generation)

    def sound(self, piece: int) -> Pcm:
        return self.tick(piece // 2).sound[piece % 2 * 960 :][:960]


@asynccontextmanager
async def call(network: Network) -> AsyncIterator[tuple[Receiver, UdpRelay, asyncio.Event]]:
    """A receiver in a call over the relay. The event: our side has noticed that the call is over."""
    ended = asyncio.Event()
    encoding = Encoding(1)
    peer = Peer(HummingPlayout(), LoopClock(), IceNetwork(AnyPort()), encoding, on_connected=lambda _: None, on_ended=lambda _: ended.set())
    try:
        async with UdpRelay(network) as relay, Receiver() as receiver:
            await receiver.connect(through(relay, peer), within=20)
            await receiver.until(lambda: bool(receiver.pictures and receiver.sounds), within=20)
            yield receiver, relay, ended
            await peer.aclose()
    finally:
        await peer.aclose()
        await encoding.aclose()


def through(relay: UdpRelay, peer: Peer) -> Callable[[str], Awaitable[str]]:
    async def negotiate(sdp: str) -> str:
        return relay.redirect(await peer.answer(read_offer(Offer(sdp=CANDIDATES.sub("", sdp), type="offer"))))

    return negotiate


async def watch(receiver: Receiver, seconds: float) -> float:
    """Returns when so much sound has arrived; when that began."""
    begun, pieces = time.monotonic(), len(receiver.sounds)
    await receiver.until(lambda: len(receiver.sounds) > pieces + seconds * 45, within=seconds + 10)
    return begun


class SoundPackets:
    """The time stamps of the sound packets that have arrived. aiortc's own jitter buffer throws away what comes late."""

    def __init__(self, receiver: Receiver):
        self.stamps: list[int] = []
        stream = receiver.connection.getTransceivers()[0].receiver
        self._take = stream._handle_rtp_packet
        setattr(stream, TAKE_PACKET, self._note)

    async def _note(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        self.stamps.append(packet.timestamp)
        await self._take(packet, arrival_time_ms=arrival_time_ms)

    def lost(self) -> list[int]:
        """How many pieces of 20 ms are missing, at each place where some are. At the ends they may have been overtaken."""
        whole = sorted(set(self.stamps))[5:-5]
        return [(later - earlier) // 960 - 1 for earlier, later in itertools.pairwise(whole) if later - earlier > 960]


def longest_gap(pictures: list[ReceivedPicture]) -> float:
    """Seconds between two decoded pictures."""
    return max(later.arrived - earlier.arrived for earlier, later in itertools.pairwise(pictures))


def is_whole(picture: ReceivedPicture) -> bool:
    """One bar, 20 columns wide, from top to bottom."""
    bright = picture.luma > 130
    columns = bright.mean(axis=0)
    return 14 <= (columns > 0.9).sum() <= 22 and bool(((columns > 0.9) | (columns < 0.1)).mean() > 0.9)


async def test_five_percent_loss_leave_the_sound_unbroken_and_the_picture_whole() -> None:
    async with call(BAD) as (receiver, _, _):
        packets = SoundPackets(receiver)
        begun = await watch(receiver, 6)
        pictures = [each for each in receiver.pictures if each.arrived > begun]
        assert all(each.audible for each in receiver.sound_after(begun))
    assert sum(packets.lost()) < 0.12 * len(packets.stamps)
    assert max(packets.lost()) <= 3, "in-band FEC and concealment bridge 60 ms"
    assert longest_gap(pictures) < 2
    assert np.mean([is_whole(each) for each in pictures]) > 0.9


async def test_datagrams_that_overtake_each_other_cost_nothing() -> None:
    async with call(Network(delay=0.04, jitter=0.03)) as (receiver, _, _):
        packets = SoundPackets(receiver)
        begun = await watch(receiver, 2)
        pictures = [each for each in receiver.pictures if each.arrived > begun]
    assert packets.lost() == []
    assert all(is_whole(each) for each in pictures)


async def test_a_call_goes_on_after_the_network_was_cut_for_three_seconds() -> None:
    async with call(Network(delay=0.02)) as (receiver, relay, ended):
        relay.cut = True
        await asyncio.sleep(3)
        relay.cut = False
        mended, heard, seen = time.monotonic(), len(receiver.sounds), len(receiver.pictures)
        await receiver.until(lambda: len(receiver.sounds) > heard + 20 and sum(map(is_whole, receiver.pictures[seen:])) > 10)
        assert not ended.is_set()
    first = next(each for each in receiver.pictures if each.arrived > mended + 0.1 and is_whole(each))
    assert first.arrived - mended < 2


async def test_a_client_that_vanishes_is_noticed_within_ten_seconds() -> None:
    async with call(Network()) as (_, relay, ended):
        relay.cut = True
        async with asyncio.timeout(10):
            await ended.wait()
