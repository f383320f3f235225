"""What prepares this server's avatars for MuseTalk: which way its settings and weights want it, and the making itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from gpuserver.config import Settings
from gpuserver.errors import AvatarNotFound, Cancelled, DiskFull, GpuserverError, WeightsMissing
from gpuserver.interpreter import Interpreter
from gpuserver.musetalk.avatars.avatar_files import read_info
from gpuserver.musetalk.avatars.avatar_shelf import AvatarShelf
from gpuserver.musetalk.preparing.latent_job import run_latent_preparation
from gpuserver.musetalk.preparing.latent_preparation import LatentRequest
from gpuserver.musetalk.preparing.preparation_job import Watch
from gpuserver.musetalk.weight_files.model_files import NEEDS, Version, describe_missing, installed_version
from gpuserver.wire import AvatarInfo, MuseTalkPreparation

_FIRST_STEP = 0.4  # of a creation's progress: the video
_VERSIONS = {"v1.5": Version.V15, "v1.0": Version.V10}

_log = logging.getLogger(__name__)


def wanted_preparation(settings: Settings) -> MuseTalkPreparation:
    """How avatars are to be prepared: the version as set or installed, BiSeNet if its weights are there. Raises WeightsMissing."""
    base = settings.musetalk_base
    version = _VERSIONS.get(settings.musetalk_version) or (base and installed_version(base)) or Version.V15
    shortfall = describe_missing(base, version)
    if base is None or shortfall is not None:
        raise WeightsMissing(shortfall or "MUSETALK_BASE is not set.")
    bisenet = next(need for need in NEEDS if need.name == "BiSeNet")
    newer = version is Version.V15
    return MuseTalkPreparation(
        version="V1.5" if newer else "V1.0",
        mask=settings.musetalk_mask if settings.musetalk_mask != "auto" else "jaw" if newer else "raw",
        parsing="landmarks" if bisenet.found(base) is None else "bisenet",
        bbox_shift=0 if newer else settings.musetalk_bbox_shift,
        extra_margin=settings.musetalk_extra_margin if newer else 0,
    )


class AvatarLatents:
    """Finds and makes the latents of avatars. Thread-safe. python: what runs the child process."""

    def __init__(self, settings: Settings, shelf: AvatarShelf, python: Callable[[], Interpreter]):
        self._settings = settings
        self._shelf = shelf
        self._python = python

    @property
    def enabled(self) -> bool:
        """Whether this server draws with MuseTalk where it can."""
        return self._settings.enable_musetalk

    def wanted(self) -> MuseTalkPreparation | None:
        """How an avatar has to be prepared to be drawn by MuseTalk here; None where MuseTalk is off or lacks its weights."""
        if not self.enabled:
            return None
        try:
            return wanted_preparation(self._settings)
        except WeightsMissing:
            return None

    def found(self, avatar_id: str, version: Path) -> Path | None:
        """The latents of the avatar's version in that folder, made as they are wanted now; None if there are none."""
        how = self.wanted()
        if how is None:
            return None
        place = self._shelf.latents.place(avatar_id, self._shelf.version_key(version), how)
        return place if place.is_dir() else None

    def lacking(self, avatar_id: str, version: Path) -> bool:
        """Whether MuseTalk could draw the avatar's version here if it were prepared."""
        return self.wanted() is not None and self.found(avatar_id, version) is None

    def engine(self, avatar_id: str, version: Path) -> str:
        """What draws the lips of the avatar's version: musetalk or warp."""
        return "warp" if self.found(avatar_id, version) is None else "musetalk"

    def described(self, avatar_id: str, version: Path, info: AvatarInfo) -> AvatarInfo:
        """The info, completed with what draws the lips."""
        if self.engine(avatar_id, version) == "warp":
            return info
        return info.model_copy(update={"engine": "musetalk", "musetalk": self.wanted()})

    def before(self, watch: Watch) -> Watch:
        """The watch over a creation's first step, all of it where no preparation for MuseTalk follows."""
        return watch.step(0, _FIRST_STEP) if self.enabled else watch

    def complete(self, avatar_id: str, version: Path, watch: Watch, most_bytes: int | None) -> str | None:
        """The second step of a creation. None, or why the avatar has to do with the warp engine. Raises DiskFull, Cancelled."""
        if not self.enabled:
            return None
        try:
            self.make(avatar_id, version, watch.step(_FIRST_STEP, 1 - _FIRST_STEP), most_bytes)
        except (Cancelled, DiskFull):
            raise
        except GpuserverError as error:
            _log.warning("avatar %s is not prepared for MuseTalk: %s %s", avatar_id, error.detail, error.advice)
            return error.detail
        return None

    def make(self, avatar_id: str, version: Path, watch: Watch, most_bytes: int | None) -> bool:
        """Prepare the avatar's version in that folder; False if it is prepared already. most_bytes: that it may take.

        Raises WeightsMissing, WeightsDamaged, AvatarNotFound, AvatarDamaged, DiskFull, Cancelled, GpuserverError.
        """
        how = wanted_preparation(self._settings)
        place = self._shelf.latents.place(avatar_id, self._shelf.version_key(version), how)
        if place.is_dir():
            return False
        frames, began = read_info(version).frames, time.monotonic()
        base = self._settings.musetalk_base or Path()
        with self._shelf.latents.making() as folder:
            request = LatentRequest(avatar=version, folder=folder, base=base, preparation=how, most_bytes=most_bytes)
            run_latent_preparation(request, frames, watch, python=self._python())
            if not version.is_dir():
                raise AvatarNotFound(f"The avatar {avatar_id!r} was deleted or replaced while it was prepared for MuseTalk.")
            self._shelf.latents.publish(folder, place)
        _log.info("avatar %s prepared for MuseTalk %s in %.1f s", avatar_id, how.version, time.monotonic() - began)
        return True

    def discard(self, avatar_id: str, version: Path) -> None:
        """Remove what is damaged or not needed."""
        self._shelf.latents.forget(avatar_id, self._shelf.version_key(version))
