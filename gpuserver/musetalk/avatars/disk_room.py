"""How much the pictures of an avatar may take: they are raw, and a minute of them is gigabytes."""

from __future__ import annotations

import shutil
from pathlib import Path

from gpuserver.errors import AvatarRoomFull, DiskFull

MARGIN_BYTES = 256 * 1024**2  # stays free for everybody else on this disk

_MB = 1024**2


class DiskRoom:
    """The room below `folder`. most: bytes that one avatar may take where AVATAR_MAX_DISK_GB says so, else None; margin: stay free."""

    def __init__(self, folder: Path, most: int | None = None, *, margin: int = MARGIN_BYTES):
        self._folder = folder
        self._most = most
        self._margin = margin

    def require(self, more: int, *, written: int = 0) -> None:
        """Whether `more` bytes may be added to the avatar's `written` ones. Raises AvatarRoomFull, DiskFull."""
        if self._most is not None and written + more > self._most:
            raise AvatarRoomFull(f"The avatar needs {_mb(written + more)} MB; AVATAR_MAX_DISK_GB leaves {_mb(max(0, self._most))} MB.")
        free = shutil.disk_usage(self._folder).free
        if more + self._margin > free:
            raise DiskFull(f"{_mb(more)} MB more are needed; {_mb(free)} MB are free, of which {_mb(self._margin)} MB must stay so.")


def _mb(size: int) -> int:
    return -(-size // _MB)
