import numpy as np
import pytest
from fakes import loud

from gpuserver.domain import Pcm
from gpuserver.musetalk.rendering.quiet_frames import QUIET, QuietFrames

RATE = 24_000
FRAME = RATE // 25


def sound(pattern: str) -> Pcm:
    """ "#" is a loud frame, "." a quiet one."""
    return np.concatenate([loud(5000 if letter == "#" else QUIET - 1, FRAME) for letter in pattern])


def heard(pattern: str, piece: int = 10**9) -> str:
    quiet = QuietFrames(RATE)
    pcm = sound(pattern)
    for at in range(0, len(pcm), piece):
        quiet.hear(pcm[at : at + piece])
    quiet.finish()
    return "".join("." if quiet.is_quiet(frame) else "#" for frame in range(quiet.known))


@pytest.mark.parametrize(
    ("pattern", "spoken"),
    [
        ("##########", "##########"),
        ("###....###", "##########"),  # the stop of a plosive
        ("###.....###", "#####.#####"),
        ("###..........###", "#####......#####"),
        ("......###", "....#####"),  # before the sentence is silence
        ("###......", "#####...."),  # and after it
        ("..", ".."),
    ],
)
def test_pauses_are_quiet_with_two_frames_to_spare_on_either_side(pattern: str, spoken: str) -> None:
    assert heard(pattern) == spoken


@pytest.mark.parametrize("piece", [1, 100, FRAME, FRAME + 1, 5000])
def test_it_does_not_matter_in_which_pieces_the_sound_comes(piece: int) -> None:
    pattern = "..###......##"
    assert heard(pattern, piece) == heard(pattern)


def test_the_last_frames_are_not_told_before_what_follows_is_known() -> None:
    quiet = QuietFrames(RATE)
    quiet.hear(sound("....."))
    assert quiet.known == 3
    quiet.finish()
    assert quiet.known == 5


def test_a_frame_that_is_not_complete_counts_at_the_end() -> None:
    quiet = QuietFrames(RATE)
    quiet.hear(loud(5000, 1))
    assert quiet.known == 0
    quiet.finish()
    assert (quiet.known, quiet.is_quiet(0)) == (1, False)
