"""The packets of a stream: their numbers go round, and what was lost is sent again, but not without end."""

from __future__ import annotations

import asyncio

import pytest
from aiortc.rtp import RTCP_RTPFB_NACK, RtcpRtpfbPacket
from sent_packets import SentPackets
from virtual_time import in_virtual_time

from gpuserver.media.sending import HISTORY, ROUND_TRIP


async def ask_again(stream: SentPackets, lost: list[int]) -> None:
    """What a browser does that misses these packets."""
    await stream.sender._handle_rtcp_packet(RtcpRtpfbPacket(RTCP_RTPFB_NACK, 0, stream.sender._ssrc, lost=lost))


@in_virtual_time
async def test_sequence_numbers_and_time_stamps_go_round() -> None:
    stream = SentPackets()
    stream.sending._sequence, stream.sending._origin = 0xFFFE, 0xFFFFFFFF
    await stream.send(b"a", b"b", timestamp=0)
    await stream.send(b"c", b"d", timestamp=3600)
    assert [packet.sequence_number for packet in stream.packets] == [0xFFFE, 0xFFFF, 0, 1]
    assert [packet.timestamp for packet in stream.packets] == [0xFFFFFFFF, 0xFFFFFFFF, 3599, 3599]
    await ask_again(stream, [0xFFFF, 0])
    assert [packet.payload for packet in stream.packets[4:]] == [b"b", b"c"]


@in_virtual_time
async def test_a_packet_that_is_gone_is_not_sent_again_and_no_other_in_its_place() -> None:
    stream = SentPackets()
    for index in range(HISTORY + 1):
        await stream.send(b"%d" % index)
    first = stream.packets[0].sequence_number
    await ask_again(stream, [first, first - 1, (first + 2 * HISTORY) & 0xFFFF])
    assert len(stream.packets) == HISTORY + 1
    await ask_again(stream, [first + 1])
    assert stream.packets[-1].payload == b"1"


@in_virtual_time
async def test_a_client_that_asks_for_the_same_packets_over_and_over_does_not_keep_the_server_busy() -> None:
    stream = SentPackets()
    for index in range(HISTORY):
        await stream.send(b"%d" % index)
    everything = [packet.sequence_number for packet in stream.packets]
    for _ in range(20):
        await ask_again(stream, everything)
        await asyncio.sleep(0.03)
    assert len(stream.packets) == 2 * HISTORY
    await asyncio.sleep(0.5)
    await ask_again(stream, everything[:3])
    assert len(stream.packets) == 2 * HISTORY + 3


@in_virtual_time
async def test_a_packet_that_is_on_its_way_again_is_not_sent_a_third_time() -> None:
    """A browser asks every few milliseconds until it has it."""
    stream = SentPackets()
    setattr(stream.sender, ROUND_TRIP, 0.3)
    await stream.send(b"one")
    [packet] = stream.packets
    for _ in range(7):
        await ask_again(stream, [packet.sequence_number])
        await asyncio.sleep(0.11)
    assert stream.times == pytest.approx([0, 0, 0.33, 0.66])
