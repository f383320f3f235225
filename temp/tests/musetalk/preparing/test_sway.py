"""The sway moves all three planes of a picture alike, and the points of the face with them."""

from __future__ import annotations

import numpy as np
from clips import portrait, portrait_face

from gpuserver.musetalk.preparing.still import to_i420
from gpuserver.musetalk.preparing.sway import Sway
from gpuserver.musetalk.rendering.compositor import planes

EVERYWHERE = np.ones((64, 64), np.float32)


def test_without_displacement_every_plane_stays_as_it_is() -> None:
    picture = to_i420(portrait())
    sway = Sway(portrait_face().landmarks, EVERYWHERE, 512, 512)
    moved = sway.picture(picture, np.zeros((512, 512, 2), np.float32))
    for before, after in zip(planes(picture), planes(moved), strict=True):
        assert np.array_equal(before, after)


def test_a_moved_picture_keeps_its_colours() -> None:
    picture = to_i420(portrait())
    sway = Sway(portrait_face().landmarks, EVERYWHERE, 512, 512)
    moved = sway.picture(picture, sway.displacement(0.3))
    for before, after in zip(planes(picture), planes(moved), strict=True):
        assert abs(float(before.std()) - float(after.std())) < 0.3
        assert abs(float(before.mean()) - float(after.mean())) < 0.3


def test_a_shift_moves_the_points_of_the_face_by_the_same() -> None:
    face = portrait_face()
    shift = np.zeros((512, 512, 2), np.float32)
    shift[..., 0], shift[..., 1] = 2.5, -1.0
    moved = Sway(face.landmarks, EVERYWHERE, 512, 512).landmarks(shift)
    assert np.allclose(moved - face.landmarks, [2.5, -1.0], atol=1e-3)
