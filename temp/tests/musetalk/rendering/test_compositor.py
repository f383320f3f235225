from dataclasses import replace

import numpy as np
import pytest
from fakes import CROP_LUMA, MOUTH, fake_crop, fake_frame, mouth_luma

from gpuserver.musetalk.rendering.compositor import FADE_FRAMES, MouthFade, compose, planes

FRAME = fake_frame(10)
CROP = fake_crop(FRAME)


def outside(picture: np.ndarray) -> np.ndarray:
    """The luma without the mouth's box."""
    luma = planes(picture)[0].astype(int)
    luma[MOUTH.top : MOUTH.bottom, MOUTH.left : MOUTH.right] = -1
    return luma


def test_without_a_crop_the_frames_own_picture_is_shown_not_a_copy() -> None:
    assert compose(FRAME, None) is FRAME.picture
    assert compose(FRAME, CROP, 0.0) is FRAME.picture


def test_the_crop_is_pasted_exactly_and_nothing_else_changes() -> None:
    picture = compose(FRAME, CROP)
    assert picture is not FRAME.picture
    assert np.array_equal(planes(picture)[0][MOUTH.top : MOUTH.bottom, MOUTH.left : MOUTH.right], CROP.y)
    assert np.array_equal(outside(picture), outside(FRAME.picture))


def test_all_three_planes_are_pasted() -> None:
    y, u, v = planes(compose(FRAME, type(CROP)(CROP.box, CROP.y, CROP.u + np.uint8(9), CROP.v - np.uint8(7))))
    assert y[15, 15] == CROP_LUMA
    assert u[7, 7] == 128 + 9
    assert v[7, 7] == 128 - 7
    assert u[0, 0] == v[0, 0] == 128


@pytest.mark.parametrize("strength", [0.25, 1 / 3, 0.5, 0.9])
def test_a_weak_crop_is_mixed_with_the_source(strength: float) -> None:
    source = mouth_luma(FRAME.picture)
    assert mouth_luma(compose(FRAME, CROP, strength)) == pytest.approx(source + strength * (CROP_LUMA - source), abs=1)


def test_a_crop_of_another_frame_leaves_no_seam_at_its_rim() -> None:
    later = fake_frame(14)  # four steps brighter, as after a change of light
    picture = compose(later, CROP, 1.0, drawn_on=FRAME)
    rim = planes(picture)[0][MOUTH.top, MOUTH.left : MOUTH.right]
    assert set(rim.tolist()) == {16 + 14}
    assert mouth_luma(picture) == CROP_LUMA + 4


def test_a_change_that_leaves_the_range_of_a_byte_is_clipped() -> None:
    bright = fake_frame(99)
    dark = fake_frame(0)
    assert mouth_luma(compose(bright, fake_crop(dark, luma=250), 1.0, drawn_on=dark)) == 255
    assert mouth_luma(compose(dark, fake_crop(bright, luma=0), 1.0, drawn_on=bright)) == 0


def test_the_mouth_fades_in_and_out_over_four_frames() -> None:
    fade = MouthFade()
    rising = [mouth_luma(fade.talking(FRAME, CROP)) for _ in range(5)]
    falling = [fade.idle(FRAME) for _ in range(5)]
    source = mouth_luma(FRAME.picture)
    steps = [source + (CROP_LUMA - source) * quarter / 4 for quarter in range(5)]
    assert rising == pytest.approx([*steps[1:], CROP_LUMA], abs=1)
    assert [mouth_luma(picture) for picture in falling] == pytest.approx([*steps[3::-1], source], abs=1)
    assert falling[3] is falling[4] is FRAME.picture


def test_a_frame_that_could_not_be_drawn_lets_the_last_mouth_fade_out() -> None:
    fade = MouthFade()
    for _ in range(FADE_FRAMES):
        fade.talking(FRAME, CROP)
    levels = [mouth_luma(fade.talking(FRAME, None)) for _ in range(FADE_FRAMES)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == mouth_luma(FRAME.picture)


def test_the_mouths_of_two_engines_cross_fade_without_the_sources_own_in_between() -> None:
    fade = MouthFade()
    warped, generated = replace(fake_crop(FRAME, 100), engine="warp"), replace(fake_crop(FRAME, 200), engine="musetalk")
    for _ in range(FADE_FRAMES):
        fade.talking(FRAME, generated)
    mouths = [mouth_luma(fade.talking(FRAME, warped)) for _ in range(FADE_FRAMES + 1)]
    assert mouths == pytest.approx([175, 150, 125, 100, 100], abs=1)


def test_a_mouth_that_is_leaving_goes_also_when_the_speech_ends() -> None:
    fade = MouthFade()
    for _ in range(FADE_FRAMES):
        fade.talking(FRAME, replace(CROP, engine="musetalk"))
    fade.talking(FRAME, replace(CROP, engine="warp"))
    pictures = [fade.idle(FRAME) for _ in range(FADE_FRAMES)]
    levels = [mouth_luma(picture) for picture in pictures]
    assert levels == sorted(levels, reverse=True)
    assert pictures[-1] is FRAME.picture


def test_a_lent_mouth_is_carried_over_to_the_frame_that_borrows_it() -> None:
    lender, borrower = fake_frame(0), fake_frame(10)
    lent = replace(fake_crop(lender, 150), drawn_on=lender)
    fade = MouthFade()
    for _ in range(FADE_FRAMES):
        picture = fade.talking(borrower, lent, drawn_on=borrower)
    assert mouth_luma(picture) == pytest.approx(160, abs=1)  # its own frame is 10 brighter
