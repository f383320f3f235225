"""What MuseTalk needs of an avatar, on disk beside it: written once, mapped by every reader (docs/avatar-format.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gpuserver.domain import Avatar, Box, LatentFace
from gpuserver.errors import AvatarDamaged
from gpuserver.musetalk.avatars.avatar_files import load_array, npy_bytes, sync_file, sync_folder
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.wire import MuseTalkPreparation

FORMAT = 1
DESCRIPTION, LATENTS, MASKS, BOXES = "latents.json", "latents.f16", "masks.u8", "boxes.npy"
LATENT_SHAPE = (8, 32, 32)

Scalar = TypeVar("Scalar", bound=np.generic)


class LatentWriter:
    """Writes one LatentFace per frame into an empty folder: add() them in order, then finish(). OSError (a full disk) passes through.

    Nothing here publishes the folder; a reader must not see it before finish() has returned. room: how much may be written.
    """

    def __init__(self, folder: Path, room: DiskRoom | None = None):
        self._folder = folder
        self._room = room or DiskRoom(folder)
        self._written = 0
        self._boxes: list[tuple[int, ...]] = []
        self._latents: BinaryIO = (folder / LATENTS).open("xb")
        self._masks: BinaryIO = (folder / MASKS).open("xb")

    def __enter__(self) -> LatentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._latents.close()
        self._masks.close()

    def add(self, face: LatentFace) -> None:
        """Append the next frame's. Raises DiskFull."""
        if face.latent.shape != LATENT_SHAPE or face.latent.dtype != np.float16:
            raise ValueError(f"{face.latent.dtype} {face.latent.shape} is no latent")
        if face.mask.shape != (face.mask_box.height, face.mask_box.width) or face.mask.dtype != np.uint8:
            raise ValueError(f"a mask of shape {face.mask.shape} for {face.mask_box}")
        size = face.latent.nbytes + face.mask.nbytes
        self._room.require(size, written=self._written)
        self._latents.write(np.ascontiguousarray(face.latent).data)
        self._masks.write(np.ascontiguousarray(face.mask).data)
        self._written += size
        self._boxes.append((*_corners(face.box), *_corners(face.mask_box)))

    def finish(self, preparation: MuseTalkPreparation) -> None:
        """Write what belongs to them and make everything durable (fsync)."""
        for file in (self._latents, self._masks):
            sync_file(file)
            file.close()
        described = {"format": FORMAT, "frames": len(self._boxes), **preparation.model_dump()}
        boxes = np.array(self._boxes, np.int32).reshape(-1, 8)
        for name, content in ((BOXES, npy_bytes(boxes)), (DESCRIPTION, json.dumps(described, indent=2).encode())):
            with (self._folder / name).open("xb") as file:
                file.write(content)
                sync_file(file)
        sync_folder(self._folder)


def read_preparation(folder: Path) -> MuseTalkPreparation:
    """How the latents in the folder were made. Raises AvatarDamaged."""
    try:
        described = json.loads((folder / DESCRIPTION).read_bytes())
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise AvatarDamaged(f"{folder.name}/{DESCRIPTION} is not of format {FORMAT}")
        return MuseTalkPreparation.model_validate(described)
    except (OSError, ValueError, ValidationError) as error:
        raise AvatarDamaged(f"{folder.name}/{DESCRIPTION} cannot be read: {type(error).__name__}") from error


def with_latents(avatar: Avatar, folder: Path) -> Avatar:
    """The avatar with `generated` in every frame; the files stay on disk and are mapped. Raises AvatarDamaged where they do not fit it."""
    read_preparation(folder)
    count = len(avatar.frames)
    try:
        boxes = load_array(folder / BOXES, (count, 8), np.int32)
        latents = _map(folder / LATENTS, np.float16, count * int(np.prod(LATENT_SHAPE)))
        inside = _places(boxes, avatar.width, avatar.height)
        offsets = np.concatenate([[0], np.cumsum([box.width * box.height for _, box in inside])])
        masks = _map(folder / MASKS, np.uint8, int(offsets[-1]))
    except (OSError, ValueError) as error:
        raise AvatarDamaged(f"{folder.name} cannot be loaded: {error}") from error
    faces = (
        LatentFace(latent, box, masks[start:stop].reshape(shown.height, shown.width), shown)
        for latent, (box, shown), start, stop in zip(latents.reshape(count, *LATENT_SHAPE), inside, offsets[:-1], offsets[1:], strict=True)
    )
    frames = tuple(replace(frame, generated=face) for frame, face in zip(avatar.frames, faces, strict=True))
    return replace(avatar, frames=frames)


def _places(boxes: NDArray[np.generic], width: int, height: int) -> list[tuple[Box, Box]]:
    """Face box and mask box of every frame. Raises AvatarDamaged where one is empty, odd, or outside the picture."""
    places = [(Box(*row[:4]), Box(*row[4:])) for row in boxes.tolist()]
    for box in (box for place in places for box in place):
        if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
            raise AvatarDamaged(f"{box} is no box in a picture of {width}x{height}")
    if any(edge % 2 for _, shown in places for edge in _corners(shown)):
        raise AvatarDamaged("a mask does not have even coordinates")
    return places


def _map(path: Path, dtype: type[Scalar], count: int) -> NDArray[Scalar]:
    expected, size = count * np.dtype(dtype).itemsize, path.stat().st_size
    if size != expected or not size:
        raise AvatarDamaged(f"{path.name} has {size} bytes, {expected} were written")
    return np.asarray(np.memmap(path, dtype, mode="r", shape=(count,)))


def _corners(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right, box.bottom
