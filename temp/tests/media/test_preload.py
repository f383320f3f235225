"""After a preload the next session with the avatar reads nothing from disk."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import MakeSettings
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)


def _resident_kilobytes(file: Path) -> tuple[int, int]:
    """How much of the file this process has mapped, and how much of that is in memory."""
    sizes, resident, ours = 0, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(file) in line
        elif ours and line.startswith("Size:"):
            sizes += int(line.split()[1])
        elif ours and line.startswith("Rss:"):
            resident += int(line.split()[1])
    return sizes, resident


async def test_a_session_after_a_preload_needs_none_of_the_avatars_files(media: MediaServer, media_settings: MakeSettings) -> None:
    folder = media_settings().avatars_dir / "demo"
    answer = await media.client.post("/v1/avatars/demo/preload", headers=media.internal)
    body = await answer.json()
    assert (answer.status, body["status"], body["avatar_id"]) == (200, "success", "demo")
    assert body["bytes"] > (folder / "frames.i420").stat().st_size

    mapped, resident = _resident_kilobytes(folder / "frames.i420")
    assert mapped == resident > 0
    before = folder.stat()
    for file in folder.iterdir():
        if file.name != "avatar.json":  # shows that there is an avatar
            file.unlink()
    (folder / "avatar.json").write_bytes(b"")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await media.create())["avatar_id"] == "demo"


@pytest.mark.parametrize(("avatar_id", "status"), [("nobody", 404), ("no.body", 400)])
async def test_an_avatar_that_is_not_there_cannot_be_loaded(media: MediaServer, avatar_id: str, status: int) -> None:
    assert (await media.client.post(f"/v1/avatars/{avatar_id}/preload", headers=media.internal)).status == status
