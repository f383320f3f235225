"""Kills the process that creates an avatar, again and again, at random moments: no half avatar is ever listed, nothing is left behind.

python soak/creation_kills.py [KILLS] [SEED]
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from gpuserver.config import Settings
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar

KILLS = 100
AVATAR_ID = "killed"

_CREATE = """
import sys
from pathlib import Path
from gpuserver.config import Settings
from gpuserver.musetalk.avatar_manager import AvatarManager
manager = AvatarManager(Settings(_env_file=None, avatars_dir=Path(sys.argv[1])))
print("ready", flush=True)
manager.create_from_file(sys.argv[2], Path(sys.argv[3]), replace=True)
"""


def kill_creations(video: Path, avatars: Path, kills: int, random_source: random.Random) -> Counter[str]:
    """Kill `kills` creations of one avatar in the folder `avatars`. Counts what was found afterwards: "none", "old", "new".

    Raises AssertionError as soon as a half avatar is listed or something is left over.
    """
    manager = AvatarManager(Settings(_env_file=None, avatars_dir=avatars))
    manager.start()
    whole = _seconds_of_a_creation(video, avatars)
    found: Counter[str] = Counter()
    for number in range(kills):
        if number % 10 == 0 and manager.ids():  # sometimes there is an avatar to be replaced, sometimes there is none
            manager.delete(AVATAR_ID)
        before = manager.folder(AVATAR_ID) if manager.ids() else None
        _kill_one(video, avatars, random_source.uniform(0, 1.15 * whole))
        found[_check_listed(manager, before)] += 1
        manager.start()  # what the next start of the server does
        _check_left_overs(manager, avatars)
    return found


def _seconds_of_a_creation(video: Path, avatars: Path) -> float:
    with _started(video, avatars) as process:
        began = time.monotonic()
        assert process.wait() == 0, "the video does not become an avatar"
        return time.monotonic() - began


def _kill_one(video: Path, avatars: Path, seconds: float) -> None:
    with _started(video, avatars) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    # Its own child notices that nobody listens any more; a server that starts again a moment later finds it gone.
    while _orphans(avatars):
        os.sched_yield()


def _started(video: Path, avatars: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _CREATE, str(avatars), AVATAR_ID, str(video)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # "ready": Python's own start is not what is killed
    return process


def _orphans(avatars: Path) -> list[str]:
    """Preparations of this folder that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue  # it has ended
        if b"gpuserver.musetalk.preparing.preparation" in command and str(avatars).encode() in command:
            found.append(process.parent.name)
    return found


def _check_listed(manager: AvatarManager, before: Path | None) -> str:
    """What is listed right after the kill, before anything was tidied up: nothing, the old avatar, or the complete new one."""
    if not manager.ids():
        assert before is None, "the old avatar is lost"
        return "none"
    avatar = load_avatar(manager.folder(AVATAR_ID))
    assert len(avatar.frames) == manager.info(AVATAR_ID).frames
    assert all(frame.picture.any() for frame in avatar.frames)
    return "old" if manager.folder(AVATAR_ID) == before else "new"


def _check_left_overs(manager: AvatarManager, avatars: Path) -> None:
    shown = {manager.folder(avatar_id).name for avatar_id in manager.ids()}
    left = {path.name for path in (avatars / ".versions").iterdir()} - shown
    assert not left, f"left over: {left}"
    assert not list((avatars / ".uploads").iterdir())
    assert {path.name for path in avatars.iterdir() if not path.name.startswith(".")} == set(manager.ids())


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "temp" / "tests"))
    from clips import Clip, write_clip

    kills, seed = (int(text) for text in (*sys.argv[1:], *(str(KILLS), "1")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        video = write_clip(Path(folder) / "clip.mp4", Clip(seconds=1.6))
        began = time.monotonic()
        found = kill_creations(video, Path(folder) / "avatars", kills, random.Random(seed))
    print(f"{kills} kills in {time.monotonic() - began:.0f} s: no half avatar, nothing left over.")
    print(f"Found afterwards: no avatar {found['none']}, the old one {found['old']}, the new one {found['new']}.")


if __name__ == "__main__":
    main()
