"""Loaded avatars, shared by all sessions of the media server."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from gpuserver.domain import Avatar
from gpuserver.errors import AvatarDamaged, AvatarNotFound
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.avatars.latent_files import with_latents

Identity = tuple[str, int, int, Path | None]

_log = logging.getLogger(__name__)


class AvatarCache:
    """The most recently used avatars. Thread-safe. Pictures are mapped, not read: an entry costs little memory of its own.

    want_latents: called with an avatar_id whose avatar is given out although it could be, but is not, prepared for MuseTalk.
    """

    def __init__(self, manager: AvatarManager, capacity: int = 32, *, want_latents: Callable[[str], object] | None = None):
        self._manager = manager
        self._capacity = capacity
        self._want_latents = want_latents
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, tuple[Identity, Avatar]] = OrderedDict()

    def get(self, avatar_id: str) -> Avatar:
        """The avatar as it is now; the same object for everybody until it is replaced, or prepared for MuseTalk.

        A session that holds an older one keeps it. Raises AvatarNotFound, AvatarDamaged.
        """
        with self._lock:
            (identity, avatar), lacking = self._manager.read(avatar_id, lambda folder: self._load(avatar_id, folder))
            self._loaded[avatar_id] = identity, avatar
            self._loaded.move_to_end(avatar_id)
            self._let_go()
        if lacking and self._want_latents is not None:
            self._want_latents(avatar_id)
        return avatar

    def _load(self, avatar_id: str, folder: Path) -> tuple[tuple[Identity, Avatar], bool]:
        """The entry, and whether it lacks what MuseTalk could draw on. Raises AvatarNotFound, AvatarDamaged."""
        try:
            status = folder.stat()
        except FileNotFoundError:
            raise AvatarNotFound(f"There is no avatar {avatar_id!r}.") from None
        latents = self._manager.latents.found(avatar_id, folder)
        identity = str(folder), status.st_ino, status.st_mtime_ns, latents
        known = self._loaded.get(avatar_id)
        if known is None or known[0] != identity:
            avatar = load_avatar(folder)
            if latents is not None:
                try:
                    avatar = with_latents(avatar, latents)
                except AvatarDamaged as error:
                    _log.warning("avatar %s loses its damaged latents: %s", avatar_id, error.detail)
                    self._manager.latents.discard(avatar_id, folder)
                    identity = (*identity[:3], None)
            known = identity, avatar
        return known, identity[3] is None and self._manager.latents.lacking(avatar_id, folder)

    def _let_go(self) -> None:
        """Of the longest unused avatars beyond the capacity; and of deleted ones, whose pictures take room on the disk while mapped."""
        while len(self._loaded) > self._capacity:
            self._loaded.popitem(last=False)
        for avatar_id, ((folder, *_), _) in list(self._loaded.items()):
            if not Path(folder).is_dir():
                del self._loaded[avatar_id]
