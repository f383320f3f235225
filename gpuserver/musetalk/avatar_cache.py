"""Loaded avatars, shared by all sessions of the media server."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from gpuserver.domain import Avatar
from gpuserver.musetalk.avatar_files import load_avatar
from gpuserver.musetalk.avatar_manager import AvatarManager

Identity = tuple[str, int, int]


class AvatarCache:
    """The most recently used avatars. Thread-safe. Pictures are mapped, not read: an entry costs little memory of its own."""

    def __init__(self, manager: AvatarManager, capacity: int = 32):
        self._manager = manager
        self._capacity = capacity
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, tuple[Identity, Avatar]] = OrderedDict()

    def get(self, avatar_id: str) -> Avatar:
        """The avatar as it is now; the same object for everybody until it is replaced. Raises AvatarNotFound, AvatarDamaged.

        A session that holds an older one keeps it.
        """
        with self._lock:
            identity, avatar = self._manager.read(avatar_id, lambda folder: self._load(avatar_id, folder))
            self._loaded[avatar_id] = identity, avatar
            self._loaded.move_to_end(avatar_id)
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
            return avatar

    def forget(self, avatar_id: str) -> None:
        """Let go of an avatar that was deleted."""
        with self._lock:
            self._loaded.pop(avatar_id, None)

    def _load(self, avatar_id: str, folder: Path) -> tuple[Identity, Avatar]:
        status = folder.stat()
        identity = str(folder), status.st_ino, status.st_mtime_ns
        known = self._loaded.get(avatar_id)
        return known if known is not None and known[0] == identity else (identity, load_avatar(folder))
