"""What people say about avatars, in data/avatars/.state/<id>.profile.json: beside the avatars' folders, which never change."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from pydantic import ValidationError

from gpuserver.wire import AvatarProfile

_log = logging.getLogger(__name__)


class AvatarProfiles:
    """A file per avatar that has a profile. Safe to use from several threads and processes at once."""

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self, avatar_id: str) -> AvatarProfile:
        """The profile; an empty one where none was written. A damaged one counts as none and is logged."""
        try:
            return AvatarProfile.model_validate_json(self._file(avatar_id).read_bytes())
        except FileNotFoundError:
            return AvatarProfile()
        except ValidationError as error:
            _log.warning("the profile of avatar %s is damaged: %d errors", avatar_id, error.error_count())
            return AvatarProfile()

    def write(self, avatar_id: str, profile: AvatarProfile) -> None:
        """Keep the profile fields of `profile`; an empty one leaves no file. OSError (a full disk) passes through."""
        kept = AvatarProfile.model_validate(profile.model_dump(include=set(AvatarProfile.model_fields)))
        if kept == AvatarProfile():
            self.forget(avatar_id)
            return
        draft = self._folder / f".{avatar_id}.{secrets.token_hex(8)}"
        try:
            draft.write_text(kept.model_dump_json(), encoding="utf-8")
            draft.replace(self._file(avatar_id))  # a reader sees the old one or the new one
        finally:
            draft.unlink(missing_ok=True)

    def forget(self, avatar_id: str) -> None:
        """Leave nothing of the profile."""
        self._file(avatar_id).unlink(missing_ok=True)

    def _file(self, avatar_id: str) -> Path:
        return self._folder / f"{avatar_id}.profile.json"  # an avatar_id has no dot: no other avatar's file has this name
