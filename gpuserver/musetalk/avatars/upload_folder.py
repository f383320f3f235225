"""A folder for the uploads of one process. The process holds a lock on it, so that others see whether it still lives."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import weakref
from contextlib import suppress
from pathlib import Path


class UploadFolder:
    """Made below `parent` at once; removed with all that is in it when this object goes, at the latest with the process."""

    def __init__(self, parent: Path):
        self.path, descriptor = _locked_folder(parent)
        weakref.finalize(self, _remove, self.path, descriptor)


def sweep_uploads(parent: Path) -> None:
    """Remove what lies below `parent` and no living process holds."""
    for entry in parent.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink(missing_ok=True)
        elif (descriptor := _lock(entry)) is not None:
            _remove(entry, descriptor)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / secrets.token_hex(8)
        folder.mkdir()
        descriptor = _lock(folder)
        if descriptor is not None:
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)  # another process swept it before it was locked


def _lock(folder: Path) -> int | None:
    """The descriptor that holds the lock, until it is closed; None if another one holds it or the folder has gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path, descriptor: int) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    os.close(descriptor)
