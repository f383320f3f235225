"""The folders that videos may be read from: no URL, no playlist, no link out of them, no device, no FIFO."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from gpuserver.errors import InvalidInput, VideoNotFound, VideoPathForbidden, VideoUrlRefused

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # http:, concat:, data:, …
_PLAYLISTS = frozenset({".m3u", ".m3u8", ".pls", ".mpd", ".ffconcat", ".concat", ".xspf", ".asx", ".sdp"})


class VideoDirs:
    """VIDEO_DIRS of the settings."""

    def __init__(self, folders: Iterable[Path]):
        self._folders = tuple(folders)

    def check(self, video_path: str) -> Path:
        """The path with every symbolic link followed. Raises VideoUrlRefused, VideoPathForbidden, InvalidInput."""
        if _URL.match(video_path):
            raise VideoUrlRefused("video_path is a URL; only files on this server are read.")
        if Path(video_path).suffix.lower() in _PLAYLISTS:
            raise VideoUrlRefused("video_path is a playlist; only videos are read.")
        if "\0" in video_path:
            raise InvalidInput("video_path contains a NUL character.")
        path = Path(os.path.realpath(video_path))
        if not self._hold(path):
            raise VideoPathForbidden(f"{video_path} is outside VIDEO_DIRS.")
        return path

    def open(self, video_path: str) -> BinaryIO:
        """The open file. Raises what check() raises, and VideoNotFound."""
        path = self.check(video_path)
        video = open_regular(path)
        if not self._hold(_real_path(video, path)):
            video.close()
            raise VideoPathForbidden(f"{video_path} leads outside VIDEO_DIRS.")
        return video

    def _hold(self, path: Path) -> bool:
        return any(path.is_relative_to(os.path.realpath(folder)) for folder in self._folders)


def open_regular(path: Path) -> BinaryIO:
    """The open file. A device or a FIFO is never opened. Raises VideoNotFound, InvalidInput."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"{path.name} is not a regular file.", advice="Name a video file.")
        # Should the path become a FIFO or a link right now: do not wait for it, do not follow it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoNotFound(f"There is no video {path.name}.") from error
    except OSError as error:
        raise InvalidInput(
            f"{path.name[:80]} cannot be opened: {error.strerror}.", advice="Check the name and the file's permissions."
        ) from error
    return os.fdopen(descriptor, "rb")


def _real_path(file: BinaryIO, fallback: Path) -> Path:
    """Where the open file really is: a folder on the way may have become a link after the check."""
    return Path(os.path.realpath(f"/proc/self/fd/{file.fileno()}")) if Path("/proc/self/fd").is_dir() else fallback
