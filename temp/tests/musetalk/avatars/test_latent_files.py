"""Latents on disk: what is written is read, mapped and read-only; what is damaged is said so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_avatar import JAW, fake_encode, write_small_avatar

from gpuserver.domain import Box, LatentFace
from gpuserver.errors import AvatarDamaged, AvatarRoomFull
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.musetalk.avatars.latent_files import BOXES, DESCRIPTION, LATENTS, MASKS, LatentWriter, read_preparation, with_latents
from gpuserver.musetalk.preparing.latent_preparation import latent_faces


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an avatar in "avatar" and its latents in "latents"."""
    root = tmp_path_factory.mktemp("made")
    for name in ("avatar", "latents"):
        (root / name).mkdir()
    write_small_avatar(root / "avatar")
    with LatentWriter(root / "latents") as writer:
        for face in latent_faces(load_avatar(root / "avatar"), JAW, fake_encode):
            writer.add(face)
        writer.finish(JAW)
    return root


def test_what_is_written_is_read(made: Path) -> None:
    avatar = load_avatar(made / "avatar")
    prepared = with_latents(avatar, made / "latents")
    assert read_preparation(made / "latents") == JAW
    for frame, face in zip(prepared.frames, latent_faces(avatar, JAW, fake_encode), strict=True):
        read = frame.generated
        assert read is not None
        assert (read.box, read.mask_box) == (face.box, face.mask_box)
        np.testing.assert_array_equal(read.latent, face.latent)
        np.testing.assert_array_equal(read.mask, face.mask)
        assert read.latent.dtype == np.float16
        assert not read.latent.flags.writeable
        assert not read.mask.flags.writeable
    assert avatar.frames[0].generated is None


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def describe(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / DESCRIPTION
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def place(column: int, value: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        boxes = np.load(folder / BOXES)
        boxes[2, column] = value
        np.save(folder / BOXES, boxes)

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "latents cut off": cut(LATENTS),
    "masks cut off": cut(MASKS),
    "boxes cut off": cut(BOXES),
    "latents missing": lambda folder: (folder / LATENTS).unlink(),
    "masks empty": lambda folder: (folder / MASKS).write_bytes(b""),
    "boxes of another shape": lambda folder: np.save(folder / BOXES, np.zeros((5, 4), np.int32)),
    "boxes of objects": lambda folder: np.save(folder / BOXES, np.array([None] * 5), allow_pickle=True),
    "a box outside the picture": place(2, 999),
    "a negative box": place(0, -1),
    "an odd mask": place(4, 33),
    "no description": lambda folder: (folder / DESCRIPTION).unlink(),
    "a description that is no JSON": lambda folder: (folder / DESCRIPTION).write_bytes(b"\xff{"),
    "another format": describe(format=2),
    "an unknown version": describe(version="V9"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_said_so(damage: str, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "latents"
    shutil.copytree(made / "latents", folder)
    DAMAGE[damage](folder)
    with pytest.raises(AvatarDamaged):
        with_latents(load_avatar(made / "avatar"), folder)


def test_latents_of_an_avatar_with_other_frames_do_not_fit(made: Path, tmp_path: Path) -> None:
    (tmp_path / "longer").mkdir()
    write_small_avatar(tmp_path / "longer", count=6)
    with pytest.raises(AvatarDamaged):
        with_latents(load_avatar(tmp_path / "longer"), made / "latents")


def test_what_finds_no_room_is_not_written(tmp_path: Path) -> None:
    face = LatentFace(np.zeros((8, 32, 32), np.float16), Box(0, 0, 20, 20), np.zeros((10, 10), np.uint8), Box(0, 0, 10, 10))
    with LatentWriter(tmp_path, DiskRoom(tmp_path, 20_000, margin=0)) as writer:
        writer.add(face)
        with pytest.raises(AvatarRoomFull):
            writer.add(face)


@pytest.mark.parametrize(
    "face",
    [
        LatentFace(np.zeros((4, 32, 32), np.float16), Box(0, 0, 2, 2), np.zeros((2, 2), np.uint8), Box(0, 0, 2, 2)),
        LatentFace(np.zeros((8, 32, 32), np.float32), Box(0, 0, 2, 2), np.zeros((2, 2), np.uint8), Box(0, 0, 2, 2)),
        LatentFace(np.zeros((8, 32, 32), np.float16), Box(0, 0, 2, 2), np.zeros((2, 4), np.uint8), Box(0, 0, 2, 2)),
    ],
)
def test_only_latents_of_the_right_shape_are_written(face: LatentFace, tmp_path: Path) -> None:
    with LatentWriter(tmp_path) as writer, pytest.raises(ValueError, match=r"shape|latent"):
        writer.add(face)
