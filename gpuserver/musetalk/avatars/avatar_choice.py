"""Which avatar a session shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpuserver.errors import AvatarNotFound
from gpuserver.wire import AvatarInfo

_MOST_NAMED = 50  # avatars that an error lists


def choose_avatar(wanted: str | None, tutor_id: str, existing: Sequence[str], infos: Callable[[], Sequence[AvatarInfo]]) -> str:
    """The avatar asked for, else the newest of the tutor, else one that is named after the tutor. infos: of the existing ones.

    Raises AvatarNotFound, with the list of what exists.
    """
    if wanted is not None:
        candidates = [wanted]
    else:
        newest = sorted((info for info in infos() if info.tutor_id == tutor_id), key=lambda info: info.created_at, reverse=True)
        candidates = [info.avatar_id for info in newest] + [f"avatar_tutor_{tutor_id}", f"tutor_{tutor_id}_avatar"]
    for candidate in candidates:
        if candidate in existing:
            return candidate
    missing = f"There is no avatar {wanted!r}." if wanted is not None else f"Tutor {tutor_id!r} has no avatar."
    named = list(existing[:_MOST_NAMED])
    there = f"There are: {', '.join(named)}." if named else "There are none yet; create one with POST /v1/avatars."
    raise AvatarNotFound(missing, advice=there, extra={"avatars": named})
