"""The bit rate of a connection's pictures, in virtual time."""

from __future__ import annotations

import itertools

from gpuserver.media.bitrate import CLIMB_SECONDS, LADDER, LONGEST_CLIMB_SECONDS, Bitrate


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def sending(bits_per_second: int, seconds: float, bitrate: Bitrate, hand: Hand) -> None:
    for _ in range(round(seconds * 25)):
        hand.time += 0.04
        bitrate.note_sent(bits_per_second // 25 // 8)


def test_a_connection_starts_with_the_best_picture() -> None:
    assert Bitrate(Hand()).limit == LADDER[-1]


def test_an_estimate_that_falls_below_what_is_sent_lowers_the_limit_to_the_next_step_that_fits() -> None:
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(1_400_000, 1, bitrate, hand)
    bitrate.note_estimate(1_500_000)
    bitrate.note_estimate(800_000)
    assert bitrate.limit == 650_000
    sending(650_000, 1, bitrate, hand)
    bitrate.note_estimate(90_000)
    assert bitrate.limit == LADDER[0]


def test_an_estimate_while_little_is_sent_is_no_limit() -> None:
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(200_000, 2, bitrate, hand)
    bitrate.note_estimate(300_000)
    assert bitrate.limit == LADDER[-1]


def test_an_estimate_that_grows_more_slowly_than_what_is_sent_is_no_limit() -> None:
    """As a browser's does on a network without limits: after idling it is little more than the idle loop took."""
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(500_000, 5, bitrate, hand)
    bitrate.note_estimate(1_000_000)
    for estimate in range(1_010_000, 1_600_000, 20_000):
        sending(1_400_000, 0.2, bitrate, hand)
        bitrate.note_estimate(estimate)
    assert bitrate.limit == LADDER[-1]


def test_an_estimate_far_below_what_is_sent_need_not_fall() -> None:
    """Most of it has not arrived, from the beginning."""
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(1_400_000, 1, bitrate, hand)
    bitrate.note_estimate(560_000)
    assert bitrate.limit == 400_000


def test_a_step_up_that_does_not_last_is_tried_again_after_twice_the_time() -> None:
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(1_400_000, 1, bitrate, hand)
    bitrate.note_estimate(580_000)
    climbs = []
    for _ in range(1000):
        before, limit = hand.time, bitrate.limit
        sending(limit, 0.2, bitrate, hand)
        bitrate.note_estimate(590_000 if limit == 400_000 else 570_000)
        if bitrate.limit > limit:
            climbs.append(before)
    waits = [later - earlier for earlier, later in itertools.pairwise(climbs)]
    assert len(waits) >= 3
    assert all(later > 1.8 * earlier for earlier, later in itertools.pairwise(waits[:3]))
    assert max(waits) < LONGEST_CLIMB_SECONDS + 1


def test_a_key_frame_that_does_not_arrive_is_followed_by_smaller_ones_down_to_the_lowest_step() -> None:
    bitrate = Bitrate(Hand())
    limits = []
    for _ in range(6):
        bitrate.note_lost_key_frame()
        limits.append(bitrate.limit)
    assert limits == [*LADDER[-2::-1], LADDER[0], LADDER[0]]


def test_the_limit_climbs_one_step_at_a_time_and_not_too_often() -> None:
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(1_400_000, 1, bitrate, hand)
    bitrate.note_estimate(260_000)
    limits = []
    for _ in range(20):
        sending(bitrate.limit // 2, CLIMB_SECONDS / 4, bitrate, hand)
        bitrate.note_estimate(5_000_000)
        limits.append(bitrate.limit)
    assert limits == sorted(limits)
    assert all(limits.count(step) >= 4 for step in LADDER[1:-1])
    assert limits[-1] == LADDER[-1]
