"""A short run of soak/creation_kills.py, which `make soak` runs a hundred times."""

from __future__ import annotations

import random
from pathlib import Path

from clips import Clip, write_clip

from soak.creation_kills import kill_creations


def test_five_killed_creations_leave_neither_half_avatars_nor_rubbish(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", Clip(seconds=1.2))
    found = kill_creations(video, tmp_path / "avatars", 5, random.Random(3))
    assert found.total() == 5
