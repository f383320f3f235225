"""An avatar that would fill the disk, or exceed its limit, is refused before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpuserver.errors import AvatarRoomFull, DiskFull
from gpuserver.musetalk.avatars.avatar_files import AvatarWriter
from gpuserver.musetalk.avatars.disk_room import DiskRoom

PICTURE = np.zeros((96, 64), np.uint8)


def test_the_limit_counts_what_is_written_and_what_comes(tmp_path: Path) -> None:
    room = DiskRoom(tmp_path, 1000)
    room.require(400, written=600)
    with pytest.raises(AvatarRoomFull, match="AVATAR_MAX_DISK_GB"):
        room.require(401, written=600)


def test_a_margin_of_the_disk_stays_free(tmp_path: Path) -> None:
    DiskRoom(tmp_path, margin=0).require(1)
    with pytest.raises(DiskFull, match="MB are free"):
        DiskRoom(tmp_path, margin=1 << 60).require(1)


def test_a_writer_takes_no_picture_without_room(tmp_path: Path) -> None:
    with AvatarWriter(tmp_path, DiskRoom(tmp_path, 3 * PICTURE.nbytes)) as writer:
        writer.expect(3, PICTURE)
        with pytest.raises(AvatarRoomFull):
            writer.expect(4, PICTURE)
        for _ in range(3):
            writer.add(PICTURE)
        with pytest.raises(AvatarRoomFull):
            writer.add(PICTURE)
