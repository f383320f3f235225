"""Which avatars nobody has used for a while, and which are damaged."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from gpuserver.errors import AvatarDamaged, AvatarNotFound
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.wire import AvatarInfo


def used_at(info: AvatarInfo) -> datetime:
    """When the avatar was last used by a session, or made if that is later."""
    return info.created_at if info.last_used_at is None else max(info.created_at, info.last_used_at)


def unused(infos: Iterable[AvatarInfo], before: datetime) -> list[AvatarInfo]:
    """Those that were last used before this moment, the longest unused first."""
    return sorted((info for info in infos if used_at(info) < before), key=used_at)


def damaged(manager: AvatarManager) -> dict[str, str]:
    """The avatars that AvatarManager.infos() leaves out: id -> what is wrong, in a plain sentence."""
    faults = {}
    for avatar_id in manager.ids():
        with suppress(AvatarNotFound):  # deleted meanwhile
            try:
                manager.info(avatar_id)
            except AvatarDamaged as error:
                faults[avatar_id] = error.detail
    return faults
