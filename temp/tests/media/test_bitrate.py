"""The bit rate of a connection's pictures, in virtual time."""

from __future__ import annotations

from gpuserver.media.bitrate import CLIMB_SECONDS, LADDER, Bitrate


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


def test_an_estimate_below_what_is_sent_lowers_the_limit_to_the_next_step_that_fits() -> None:
    hand = Hand()
    bitrate = Bitrate(hand)
    sending(1_400_000, 1, bitrate, hand)
    bitrate.note_estimate(700_000)
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
