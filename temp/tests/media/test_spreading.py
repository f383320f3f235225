"""A key frame's packets are spread over the time of its picture, so that a slow link's buffer holds them."""

from __future__ import annotations

from typing import cast

import pytest
from aiortc import RTCDtlsTransport, RTCRtpSender
from aiortc.rtp import RtpPacket
from virtual_time import in_virtual_time, now

from gpuserver.domain import FRAME_SECONDS
from gpuserver.media.sending import Encoded, Sending, _Header
from gpuserver.media.spreading import GROUP, RATE, Spreading

PACKET = bytes(1200)
KEY_FRAME = [PACKET] * 33  # 40 kB
ORDINARY = [PACKET] * 3


class Link:
    """5 Mbit/s behind a buffer of 32 kB, as of a policed line; what does not fit is lost."""

    def __init__(self) -> None:
        self.lost = 0
        self._queued = 0.0
        self._looked_at = 0.0

    def carry(self, at: float, size: int) -> None:
        self._queued = max(0.0, self._queued - (at - self._looked_at) * 625_000)
        self._looked_at = at
        if self._queued + size > 32_000:
            self.lost += 1
        else:
            self._queued += size


class Transport:
    """Notes when packets leave, in place of aiortc's."""

    state = "connected"

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []

    async def _send_rtp(self, data: bytes) -> None:
        self.sent.append((now(), data))


class NoTrack:
    async def recv(self) -> Encoded:
        raise AssertionError("nobody asks")

    def stop(self) -> None:
        pass


@in_virtual_time
async def test_a_slow_link_loses_nothing_of_a_key_frame() -> None:
    transport, link = Transport(), Link()
    sender = RTCRtpSender("video", cast(RTCDtlsTransport, transport))
    sending = Sending(sender, NoTrack(), 0.0, 90_000)
    header = _Header(97, sender)
    for timestamp, payloads in enumerate([KEY_FRAME, *[ORDINARY] * 5]):
        await sending._send(header, Encoded(payloads, timestamp * 3600))
    for at, data in transport.sent:
        link.carry(at, len(data))
    assert link.lost == 0
    first = [(at, RtpPacket.parse(data)) for at, data in transport.sent][: len(KEY_FRAME)]
    assert first[-1][0] - first[0][0] < FRAME_SECONDS
    assert [packet.marker for _, packet in first] == [0] * 32 + [1]
    assert len({packet.timestamp for _, packet in first}) == 1


def test_an_ordinary_picture_leaves_at_once() -> None:
    spreading = Spreading(lambda: 7.0)
    assert list(spreading.groups(ORDINARY)) == [(0.0, ORDINARY)]


def test_pictures_that_are_sent_one_after_the_other_are_spread_too() -> None:
    """Such as those that a session catches up with when it joins the loop late."""
    spreading = Spreading(lambda: 7.0)
    waits = [wait for _ in range(10) for wait, _ in spreading.groups(ORDINARY)]
    assert waits == pytest.approx([index * len(ORDINARY) * len(PACKET) / RATE for index in range(10)])


def test_who_comes_late_to_a_group_is_not_late_to_those_after_it() -> None:
    clock = [0.0]
    spreading = Spreading(lambda: clock[0])
    groups = spreading.groups(KEY_FRAME)
    next(groups)
    clock[0] = 0.015  # two groups' time
    waits = [wait for wait, _ in groups]
    length = GROUP * len(PACKET) / RATE
    assert waits == pytest.approx([0.0, 2 * length - 0.015, 3 * length - 0.015, 4 * length - 0.015])
