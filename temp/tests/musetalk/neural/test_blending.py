"""Masks and the blend against arrays that the official code produced (golden/)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gpuserver.domain import Box
from gpuserver.musetalk.neural.blending import (
    BLUR_OFFLINE,
    MaskMode,
    blend,
    cheek_columns,
    cheek_kernel,
    crop,
    crop_box,
    fitted_mask,
    jaw_kernel,
    mix,
    parsing_mask,
    soft_mask,
)
from gpuserver.musetalk.neural.resampling import resized

GOLDEN = Path(__file__).parents[2] / "golden"
MODES: tuple[MaskMode, ...] = ("raw", "jaw", "neck")
CASES = [(place, mode) for place in ("center", "odd") for mode in MODES[:2]]


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("width", [80, 90])
@pytest.mark.parametrize("mode", MODES)
def test_the_mask_of_a_class_map_is_the_official_one(mode: MaskMode, width: int) -> None:
    arrays = golden("parsing_masks.npz")
    np.testing.assert_array_equal(parsing_mask(arrays["parse_map"], mode, width), arrays[f"mask_{mode}_{width}"])


def test_the_kernels_are_the_official_ones() -> None:
    arrays = golden("parsing_masks.npz")
    np.testing.assert_array_equal(jaw_kernel(), arrays["kernel"])
    np.testing.assert_array_equal(cheek_kernel(), arrays["cheek_kernel_35x3"])
    for width in (80, 90):
        np.testing.assert_array_equal(arrays[f"cheek_mask_{width}"] > 0, np.broadcast_to(cheek_columns(width), (512, 512)))


@pytest.mark.parametrize(("place", "mode"), CASES)
def test_the_stored_mask_and_its_place_are_the_official_ones(place: str, mode: MaskMode) -> None:
    arrays, classes = golden("blending.npz"), golden("parsing_masks.npz")["parse_map"]
    face = Box(*arrays[f"{place}_{mode}_box"].tolist())
    assert crop_box(face) == Box(*arrays[f"{place}_{mode}_crop_box"].tolist())
    mask = soft_mask(fitted_mask(parsing_mask(classes, mode), face), face)
    np.testing.assert_allclose(mask, arrays[f"{place}_{mode}_mask"], atol=1)


@pytest.mark.parametrize(("place", "mode"), CASES)
def test_the_blend_equals_the_official_one_bit_by_bit(place: str, mode: MaskMode) -> None:
    arrays, classes = golden("blending.npz"), golden("parsing_masks.npz")["parse_map"]
    face = Box(*arrays[f"{place}_{mode}_box"].tolist())
    prepared = blend(arrays["frame0"], arrays["face256"], face, arrays[f"{place}_{mode}_mask"])
    np.testing.assert_array_equal(prepared, arrays[f"{place}_{mode}_rt"])
    mask = soft_mask(fitted_mask(parsing_mask(classes, mode), face), face, BLUR_OFFLINE)
    np.testing.assert_array_equal(blend(arrays["frame0"], arrays["face256"], face, mask), arrays[f"{place}_{mode}_offline"])


def test_an_opaque_pixel_is_the_face_and_a_clear_one_the_picture() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(mix(levels, levels[::-1], np.uint8(255) + 0 * levels), levels)
    np.testing.assert_array_equal(mix(levels, levels[::-1], 0 * levels), levels[::-1])


def test_a_crop_beyond_the_picture_is_black_there() -> None:
    cut = crop(np.full((10, 10, 3), 200, np.uint8), Box(-5, 4, 5, 14))
    assert cut.shape == (10, 10, 3)
    assert (cut[:6, 5:] == 200).all()
    assert not cut[6:].any()
    assert not cut[:, :5].any()


def test_a_face_that_leaves_the_picture_is_blended_where_it_can_be_seen() -> None:
    picture, face = np.zeros((100, 100, 3), np.uint8), np.full((256, 256, 3), 255, np.uint8)
    box = Box(60, 50, 120, 130)
    blended = blend(picture, face, box, np.full((120, 120), 255, np.uint8))
    assert (blended[50:, 60:] == 255).all()
    assert not blended[:50].any()
    assert not blended[:, :60].any()


@pytest.mark.parametrize("size", [(192, 192), (700, 333)])
def test_an_even_picture_stays_even_at_any_size(size: tuple[int, int]) -> None:
    for name in ("bilinear", "bicubic"):
        assert (resized(np.full((512, 400, 3), 77, np.uint8), *size, name) == 77).all()


def test_enlarging_bilinearly_is_what_opencv_does_within_rounding() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    ours = resized(picture, 90, 160, "bilinear")
    assert np.abs(ours.astype(int) - cv2.resize(picture, (90, 160), interpolation=cv2.INTER_LINEAR)).max() <= 1
