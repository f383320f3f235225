"""A fake AvatarManager: keeps avatars in memory, prepares nothing, and takes as long as it is told."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

from gpuserver.config import Settings
from gpuserver.errors import AvatarExists, AvatarNotFound, Cancelled
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.preparing.preparation_job import Analysed, Progress
from gpuserver.wire import AvatarCreated, AvatarInfo, AvatarProfile, CreateAvatar, QualityReport

QUALITY = QualityReport(source_frames=25, used_frames=25, frames_without_face=0, face_width=200, mouth_width=60, mouth_opening_at_rest=0.0)


class FakeAvatarManager(AvatarManager):
    def __init__(self, settings: Settings, *, seconds: float = 0.0):
        super().__init__(settings)
        self.seconds = seconds
        self.avatars: dict[str, AvatarInfo] = {}
        self.uploaded: list[bytes] = []
        self.films_made = 0
        self.started = threading.Event()
        self.cancelled = threading.Event()

    def add(self, avatar_id: str, tutor_id: str | None = None, apply_blur: bool = False) -> None:
        self.avatars[avatar_id] = AvatarInfo(
            avatar_id=avatar_id, tutor_id=tutor_id, frames=25, width=64, height=64, seconds=1.0, created_at=datetime.now(UTC),
            apply_blur=apply_blur, quality=QUALITY,
        )  # fmt: skip

    def check(self, request: CreateAvatar, *, replace: bool = False) -> None:
        self.check_new(request.avatar_id, replace=replace)

    def check_new(self, avatar_id: str, *, replace: bool = False) -> None:
        if avatar_id in self.avatars and not replace:
            raise AvatarExists(f"There is an avatar {avatar_id}.")

    def create(
        self,
        request: CreateAvatar,
        *,
        replace: bool = False,
        progress: Progress | None = None,
        analysed: Analysed | None = None,
        cancel: threading.Event | None = None,
    ) -> AvatarCreated:
        self.started.set()
        if progress is not None and analysed is not None:
            progress("faces", 0.5)
            analysed(QUALITY)
        if cancel is not None and cancel.wait(self.seconds):
            self.cancelled.set()
            raise Cancelled("The client went away.")
        self.check_new(request.avatar_id, replace=replace)
        self.add(request.avatar_id, request.tutor_id, request.apply_blur)
        said = request.model_dump(include=set(AvatarProfile.model_fields))
        self.avatars[request.avatar_id] = self.avatars[request.avatar_id].model_copy(update=said)
        return AvatarCreated(
            avatar_id=request.avatar_id, avatar_path=f"/avatars/{request.avatar_id}", message="Avatar created successfully"
        )

    def create_from_file(
        self,
        avatar_id: str,
        video: Path,
        *,
        apply_blur: bool = False,
        tutor_id: str | None = None,
        profile: AvatarProfile | None = None,
        replace: bool = False,
        mock: bool = False,
        progress: Progress | None = None,
        analysed: Analysed | None = None,
        cancel: threading.Event | None = None,
    ) -> AvatarCreated:
        self.uploaded.append(video.read_bytes())
        said = {} if profile is None else profile.model_dump()
        request = CreateAvatar(avatar_id=avatar_id, video_path=str(video), apply_blur=apply_blur, tutor_id=tutor_id, **said)
        return self.create(request, replace=replace, progress=progress, analysed=analysed, cancel=cancel)

    def ids(self) -> list[str]:
        return sorted(self.avatars)

    def infos(self) -> list[AvatarInfo]:
        return [self.avatars[avatar_id] for avatar_id in self.ids()]

    def info(self, avatar_id: str) -> AvatarInfo:
        if avatar_id not in self.avatars:
            raise AvatarNotFound(f"There is no avatar {avatar_id}.")
        return self.avatars[avatar_id]

    def folder(self, avatar_id: str) -> Path:
        self.info(avatar_id)
        return self.uploads_dir

    def preview(self, avatar_id: str) -> Path:
        path = self.folder(avatar_id) / "preview"
        path.write_bytes(b"\xff\xd8 a fake JPEG")
        return path

    def made_film(self, avatar_id: str) -> Path | None:
        film = self.folder(avatar_id) / f"{avatar_id}.mp4"
        return film if film.is_file() else None

    def film(self, avatar_id: str, cancel: threading.Event | None = None) -> Path:
        self.started.set()
        if cancel is not None and cancel.wait(self.seconds):
            self.cancelled.set()
            raise Cancelled("The client went away.")
        self.films_made += 1
        path = self.folder(avatar_id) / f"{avatar_id}.mp4"
        path.write_bytes(b"a fake film")
        return path

    def delete(self, avatar_id: str) -> None:
        self.info(avatar_id)
        del self.avatars[avatar_id]
