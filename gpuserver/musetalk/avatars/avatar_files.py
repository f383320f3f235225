"""An avatar's folder on disk: written once, never changed, memory-mapped by every reader (docs/avatar-format.md)."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gpuserver.domain import Avatar, AvatarFrame, Box, Bytes2D, Floats
from gpuserver.errors import AvatarDamaged, AvatarNotFound
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.musetalk.vision.landmarks import COUNT
from gpuserver.wire import AvatarInfo, AvatarProfile

FORMAT = 1
INFO, FRAMES, LANDMARKS, BOXES, OPENINGS, PREVIEW = (
    "avatar.json",
    "frames.i420",
    "landmarks.npy",
    "boxes.npy",
    "openings.npy",
    "preview.jpg",
)

_NOT_STORED = {"avatar_path", "bytes", "last_used_at", "musetalk", *AvatarProfile.model_fields}  # known to the reader, or kept elsewhere
_COPY_BYTES = 8 << 20


class AvatarWriter:
    """Writes one avatar into an empty folder: add() every picture, keep() a part of them, finish().

    Nothing here publishes the folder; a reader must not see it before finish() has returned. OSError (a full disk) passes through.
    room: how much may be written; DiskFull is raised before a picture that would not fit.
    """

    def __init__(self, folder: Path, room: DiskRoom | None = None):
        self._folder = folder
        self._room = room or DiskRoom(folder)
        self._shape = (0, 0)  # rows and columns of an I420 picture; the first one decides
        self._count = 0
        self._pictures: BinaryIO = (folder / FRAMES).open("x+b")

    def __enter__(self) -> AvatarWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pictures.close()

    @property
    def width(self) -> int:
        return self._shape[1]

    @property
    def height(self) -> int:
        return self._shape[0] * 2 // 3

    def expect(self, count: int, picture: Bytes2D) -> None:
        """Raises DiskFull unless `count` more pictures like this one find room."""
        self._room.require(count * picture.nbytes, written=self._count * picture.nbytes)

    def add(self, picture: Bytes2D) -> None:
        """Append a picture: uint8 [height * 3 / 2, width], I420; all of one size, both sides even. Raises DiskFull."""
        self.expect(1, picture)
        rows, columns = picture.shape
        if rows % 3 or columns % 2 or not rows or not columns:
            raise ValueError(f"{rows} rows of {columns} are no I420 picture")
        if picture.dtype != np.uint8 or (self._count and picture.shape != self._shape):
            raise ValueError(f"a picture of shape {picture.shape} in an avatar of {self._shape}")
        self._shape = (rows, columns)
        self._pictures.write(np.ascontiguousarray(picture).data)
        self._count += 1

    def picture(self, index: int) -> Bytes2D:
        """A picture that was added and kept."""
        size = self._shape[0] * self._shape[1]
        self._pictures.seek(index * size)
        data = self._pictures.read(size)
        self._pictures.seek(0, os.SEEK_END)
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def change(self, index: int, picture: Bytes2D) -> None:
        """Put another picture of the same shape in the place of one that was added and kept."""
        if picture.shape != self._shape or picture.dtype != np.uint8 or not 0 <= index < self._count:
            raise ValueError(f"picture {index} of {self._count} cannot become one of shape {picture.shape}")
        self._pictures.seek(index * picture.size)
        self._pictures.write(np.ascontiguousarray(picture).data)
        self._pictures.seek(0, os.SEEK_END)

    def keep(self, start: int, stop: int) -> None:
        """Forget all pictures but start … stop - 1. The pictures move to the beginning of the file, which then shrinks."""
        if not 0 <= start < stop <= self._count:
            raise ValueError(f"cannot keep {start}:{stop} of {self._count} pictures")
        size = self._shape[0] * self._shape[1]
        source, target, end = start * size, 0, stop * size
        while start and source < end:
            self._pictures.seek(source)
            chunk = self._pictures.read(min(_COPY_BYTES, end - source))
            self._pictures.seek(target)
            self._pictures.write(chunk)
            source, target = source + len(chunk), target + len(chunk)
        self._count = stop - start
        self._pictures.truncate(self._count * size)
        self._pictures.seek(0, os.SEEK_END)

    def finish(self, info: AvatarInfo, landmarks: Floats, boxes: Sequence[Box], openings: Floats, preview: bytes) -> None:
        """Write all that belongs to the pictures and make everything durable (fsync).

        landmarks: [n, 468, 2]; boxes and openings: n, where n is the number of pictures kept. preview: a JPEG file.
        """
        if not self._count == len(landmarks) == len(boxes) == len(openings) == info.frames:
            raise ValueError("pictures, landmarks, boxes and openings differ in number")
        sync_file(self._pictures)
        self._pictures.close()
        corners = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], np.int32)
        for name, values in ((LANDMARKS, landmarks.astype(np.float32)), (BOXES, corners), (OPENINGS, openings.astype(np.float32))):
            with (self._folder / name).open("xb") as file:
                file.write(npy_bytes(values))
                sync_file(file)
        stored = {"format": FORMAT, **info.model_dump(mode="json", exclude=_NOT_STORED)}
        for name, content in ((PREVIEW, preview), (INFO, json.dumps(stored, indent=2, ensure_ascii=False).encode())):
            with (self._folder / name).open("xb") as file:
                file.write(content)
                sync_file(file)
        sync_folder(self._folder)


def read_info(folder: Path) -> AvatarInfo:
    """What avatar.json says, completed with the avatar's path and its size on disk. Raises AvatarNotFound, AvatarDamaged."""
    try:
        stored = json.loads((folder / INFO).read_bytes())
        if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
            raise AvatarDamaged(f"{folder.name}/{INFO} is not of format {FORMAT}")
        info = AvatarInfo.model_validate(stored)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AvatarNotFound(f"There is no avatar in {folder.name}") from error
    except (OSError, ValueError, ValidationError) as error:
        raise AvatarDamaged(f"{folder.name}/{INFO} cannot be read: {type(error).__name__}") from error
    return info.model_copy(update={"avatar_path": str(folder.absolute()), "bytes": size})


def load_avatar(folder: Path) -> Avatar:
    """The avatar of a folder; its pictures stay on disk and are mapped. Raises AvatarNotFound, AvatarDamaged.

    A reader that holds the avatar keeps it, also after the folder was replaced or deleted.
    """
    info = read_info(folder)
    try:
        pictures = _map_pictures(folder / FRAMES, info)
        landmarks = load_array(folder / LANDMARKS, (info.frames, COUNT, 2), np.float32)
        boxes = load_array(folder / BOXES, (info.frames, 4), np.int32)
        openings = load_array(folder / OPENINGS, (info.frames,), np.float32)
    except FileNotFoundError as error:
        raise AvatarDamaged(f"{folder.name} lacks a file: {Path(error.filename).name}") from error
    except (OSError, ValueError) as error:
        raise AvatarDamaged(f"{folder.name} cannot be loaded: {error}") from error
    frames = tuple(
        AvatarFrame(index, picture, points, Box(*box), opening)
        for index, (picture, points, box, opening) in enumerate(zip(pictures, landmarks, boxes.tolist(), openings.tolist(), strict=True))
    )
    return Avatar(info.avatar_id, info.width, info.height, frames)


def npy_bytes(values: NDArray[np.generic]) -> memoryview:
    """The content of an .npy file. Straight into a file numpy would write it itself, and say of a full disk no errno."""
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getbuffer()


def sync_folder(folder: Path) -> None:
    """Make a folder's list of names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _map_pictures(path: Path, info: AvatarInfo) -> NDArray[np.uint8]:
    if info.frames < 1 or info.width < 2 or info.height < 2 or info.width % 2 or info.height % 2:
        raise AvatarDamaged(f"{info.avatar_id}: {info.frames} frames of {info.width}x{info.height} are no avatar")
    shape = (info.frames, info.height * 3 // 2, info.width)
    expected, size = shape[0] * shape[1] * shape[2], path.stat().st_size
    if size != expected:
        raise AvatarDamaged(f"{info.avatar_id}/{FRAMES} has {size} bytes, {expected} were written")
    return np.asarray(np.memmap(path, np.uint8, mode="r", shape=shape))


def load_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
    """An .npy file, mapped. Raises AvatarDamaged where it holds something else, OSError or ValueError where it cannot be read."""
    values: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.shape != shape or values.dtype != dtype:
        raise AvatarDamaged(f"{path.name} holds {values.dtype} {list(values.shape)} instead of {np.dtype(dtype)} {list(shape)}")
    return np.asarray(values)


def sync_file(file: BinaryIO) -> None:
    """Make a file's content durable."""
    file.flush()
    os.fsync(file.fileno())
