"""The blurred background: only behind the person, with clean edges, steady over time."""

from __future__ import annotations

import cv2
import numpy as np
from clips import Rgb, portrait, portrait_face
from numpy.typing import NDArray

from gpuserver.domain import Bytes2D
from gpuserver.musetalk.preparing.still import to_i420
from gpuserver.musetalk.vision.background import BackgroundBlur, Silhouette, silhouette, steady_mask
from gpuserver.musetalk.vision.person import SIDE, PersonFinder


def scene(seed: int) -> Rgb:
    """The portrait with the noise of a camera."""
    noise = np.random.default_rng(seed).normal(0, 3, (512, 512, 3))
    return np.clip(portrait() + noise, 0, 255).astype(np.uint8)


def luma(picture: Bytes2D) -> NDArray[np.int32]:
    return picture[:512].astype(np.int32)


def test_the_person_keeps_every_bit_and_a_checkered_wall_becomes_grey() -> None:
    squares = np.where(np.indices((512, 512)).sum(axis=0) // 8 % 2, 60, 190).astype(np.uint8)
    picture = to_i420(np.ascontiguousarray(np.repeat(squares[..., None], 3, axis=2)))
    mask = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(mask, (112, 100), (60, 90), 0, 0, 360, 1.0, cv2.FILLED)
    blurred = BackgroundBlur(512, 512, 95).picture(picture, mask, portrait_face().landmarks)
    assert np.array_equal(luma(blurred)[120:280, 180:260], luma(picture)[120:280, 180:260])
    wall = luma(blurred)[20:490, 420:490]
    assert wall.std() < 4
    assert abs(wall.mean() - luma(picture).mean()) < 3
    assert not np.shares_memory(blurred, picture)


def test_the_person_does_not_glow() -> None:
    """A dark person before a light wall: right beside the person the wall is as light as it is elsewhere."""
    picture = np.full((512, 512, 3), 220, np.uint8)
    cv2.ellipse(picture, (225, 200), (120, 180), 0, 0, 360, (20, 20, 20), cv2.FILLED)
    mask = cv2.resize((picture[..., 0] < 100).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    blurred = BackgroundBlur(512, 512, 95).picture(to_i420(picture), np.asarray(mask, np.float32), portrait_face().landmarks)
    assert np.abs(luma(blurred) - luma(to_i420(picture)))[:, 352:].max() <= 6


def test_masks_of_a_picture_that_stands_still_do_not_flicker() -> None:
    finder = PersonFinder()
    seen = [silhouette(finder, scene(seed)) for seed in range(9)]
    raw = np.stack([each.mask / np.float32(255) for each in seen])
    steady = np.stack([steady_mask(seen, index) for index in range(9)])
    assert np.abs(np.diff(steady, axis=0)).mean() < 0.6 * np.abs(np.diff(raw, axis=0)).mean()
    assert np.abs(steady - raw).mean() < 0.01


def test_a_mask_follows_what_moves_at_once() -> None:
    def standing_at(column: int) -> Silhouette:
        mask, grey = np.zeros((2, SIDE, SIDE), np.uint8)
        mask[:, column : column + 60] = 255
        grey[:, column : column + 60] = 200
        return Silhouette(mask, grey)

    seen = [standing_at(40 + 12 * index) for index in range(9)]
    for index, each in enumerate(seen):
        assert np.abs(steady_mask(seen, index) - each.mask / 255).max() < 0.01
