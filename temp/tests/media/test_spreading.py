"""A key frame's packets are spread over the time of its picture, so that a slow link's buffer holds them."""

from __future__ import annotations

import pytest
from sent_packets import SentPackets
from virtual_time import in_virtual_time

from gpuserver.domain import FRAME_SECONDS
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


@in_virtual_time
async def test_a_slow_link_loses_nothing_of_a_key_frame() -> None:
    stream, link = SentPackets(), Link()
    for timestamp, payloads in enumerate([KEY_FRAME, *[ORDINARY] * 5]):
        await stream.send(*payloads, timestamp=timestamp * 3600)
    for at, size in zip(stream.times, stream.sizes, strict=True):
        link.carry(at, size)
    assert link.lost == 0
    last = len(KEY_FRAME) - 1
    assert stream.times[last] - stream.times[0] < FRAME_SECONDS
    assert [packet.marker for packet in stream.packets[: last + 1]] == [0] * last + [1]
    assert len({packet.timestamp for packet in stream.packets[: last + 1]}) == 1


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
