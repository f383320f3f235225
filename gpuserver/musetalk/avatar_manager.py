"""All avatars of this server: made from videos, listed, shown, replaced, deleted. Loads no cv2, av or torch."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from gpuserver.config import Settings
from gpuserver.errors import (
    AvatarDamaged,
    AvatarExists,
    AvatarNotFound,
    AvatarRoomFull,
    InvalidAvatarId,
    Unreadable,
    VideoNotFound,
)
from gpuserver.interpreter import Interpreter, choose_interpreter
from gpuserver.musetalk.avatars.avatar_choice import choose_avatar
from gpuserver.musetalk.avatars.avatar_files import PREVIEW, read_info
from gpuserver.musetalk.avatars.avatar_profiles import AvatarProfiles
from gpuserver.musetalk.avatars.avatar_shelf import AvatarShelf, writing_below
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.musetalk.avatars.video_dirs import VideoDirs, open_regular
from gpuserver.musetalk.preparing.avatar_latents import AvatarLatents
from gpuserver.musetalk.preparing.film_job import make_film
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.musetalk.preparing.preparation_job import Analysed, Progress, Watch, run_preparation
from gpuserver.wire import AVATAR_ID, AvatarCreated, AvatarInfo, AvatarProfile, CreateAvatar

SAMPLE_FACE = Path(__file__).parent / "assets" / "portrait.png"

_log = logging.getLogger(__name__)
Read = TypeVar("Read")


class AvatarManager:
    """Synchronous and thread-safe; several processes may manage the same folder. Call start() once before anything is made."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._shelf = AvatarShelf(settings.avatars_dir)
        self._profiles = AvatarProfiles(self._shelf.state)
        self._videos = VideoDirs(settings.video_dirs)
        self._choosing = threading.Lock()
        self._interpreter: Interpreter | None = None
        self.latents = AvatarLatents(settings, self._shelf, self._python)

    @property
    def uploads_dir(self) -> Path:
        """Where an upload may be written before create_from_file(); on the avatars' own file system, removed with this process."""
        with writing_below(self._shelf.root):
            return self._shelf.uploads()

    def start(self) -> None:
        """Make the folders and remove the left-overs of killed processes. Raises DiskFull, NotWritable."""
        with writing_below(self._shelf.root):
            self._shelf.prepare()

    # ------------------------------------------------------------ making

    def create(
        self,
        request: CreateAvatar,
        *,
        replace: bool = False,
        progress: Progress | None = None,
        analysed: Analysed | None = None,
        cancel: threading.Event | None = None,
    ) -> AvatarCreated:
        """Make an avatar from a video or picture on this machine.

        progress and analysed are called in this thread: how far it is (0..1), and once the quality report, before much is written.
        Raises VideoUrlRefused, VideoPathForbidden, VideoNotFound, InvalidInput, and all that create_from_file() raises.
        Under development a missing video is replaced by the sample face, which the answer says.
        """
        watch = Watch(progress, analysed, cancel)
        try:
            video = self._videos.open(request.video_path)
        except VideoNotFound:
            if not self._settings.is_development:
                raise
            return self._make(SAMPLE_FACE.open("rb"), request, replace, watch, mock=True)
        return self._make(video, request, replace, watch)

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
        """Make an avatar from a file that the server itself put there (an upload). mock: the file is a stand-in, which the answer says.

        Raises InvalidAvatarId, AvatarExists, VideoNotFound, Unreadable, NoUsableFace, VideoLimitExceeded, DiskFull, Cancelled.
        """
        _check_id(avatar_id)
        said = {} if profile is None else profile.model_dump()
        request = CreateAvatar(avatar_id=avatar_id, video_path=str(video), apply_blur=apply_blur, tutor_id=tutor_id, **said)
        opened = open_regular(Path(os.path.realpath(video)))
        return self._make(opened, request, replace, Watch(progress, analysed, cancel), mock=mock)

    def create_demo(
        self,
        avatar_id: str = "demo",
        replace: bool = False,
        *,
        progress: Progress | None = None,
        analysed: Analysed | None = None,
        cancel: threading.Event | None = None,
    ) -> AvatarCreated:
        """Make an avatar from the bundled sample face, which is given a gentle life. Raises AvatarExists, DiskFull, Cancelled."""
        _check_id(avatar_id)
        request = CreateAvatar(avatar_id=avatar_id, video_path=str(SAMPLE_FACE))
        return self._make(SAMPLE_FACE.open("rb"), request, replace, Watch(progress, analysed, cancel))

    def check(self, request: CreateAvatar, *, replace: bool = False) -> None:
        """What can be refused at once. Raises VideoUrlRefused, VideoPathForbidden, InvalidInput, AvatarExists."""
        self._videos.check(request.video_path)
        self.check_new(request.avatar_id, replace=replace)

    def check_room(self, upload_bytes: int = 0, *, replace: bool = False) -> None:
        """Whether an avatar has a chance to find room, and its upload before. Raises DiskFull, AvatarRoomFull."""
        DiskRoom(self._shelf.root).require(upload_bytes)
        if not replace:  # else it depends on what is replaced
            DiskRoom(self._shelf.root, self._room_for(None)).require(1)

    def check_new(self, avatar_id: str, *, replace: bool = False) -> None:
        """Raises AvatarExists."""
        if not replace and self._shelf.exists(avatar_id):
            raise AvatarExists(f"There is an avatar {avatar_id!r} already.")

    def _make(
        self,
        video: BinaryIO,
        request: CreateAvatar,
        replace: bool,
        watch: Watch,
        *,
        mock: bool = False,
    ) -> AvatarCreated:
        avatar_id = request.avatar_id
        with video, writing_below(self._shelf.root):
            if os.fstat(video.fileno()).st_size == 0:
                raise Unreadable("The video file is empty.")
            with self._shelf.making(avatar_id) as folder:
                self.check_new(avatar_id, replace=replace)  # in here: another creator may just have ended
                job = PreparationRequest(
                    folder=folder,
                    avatar_id=avatar_id,
                    tutor_id=request.tutor_id,
                    apply_blur=request.apply_blur,
                    mock=mock,
                    most_bytes=self._room_for(avatar_id if replace else None),
                    ffmpeg=shutil.which(self._settings.ffmpeg_path),
                )
                run_preparation(job, video, self.latents.before(watch), python=self._python())
                shortfall = self.latents.complete(avatar_id, folder, watch, self._room_for(avatar_id if replace else None))
                with self._shelf.publishing():
                    if (self._room_for(avatar_id if replace else None, finished=folder) or 0) < 0:
                        raise AvatarRoomFull("The avatar and others made meanwhile exceed AVATAR_MAX_DISK_GB.")
                    self._profiles.write(avatar_id, request)
                    self._shelf.publish(avatar_id, folder, replace=replace)
                engine = self.latents.engine(avatar_id, folder)
        message = "Avatar created successfully"
        if mock:
            message += " from the sample face (mock), because there is no such video"
        if shortfall is not None:
            message += f". It is shown with the warp engine, because it could not be prepared for MuseTalk: {shortfall}"
        _log.info("avatar %s created%s", avatar_id, " (mock)" if mock else "")
        path = str(self._shelf.root / avatar_id)
        return AvatarCreated(avatar_id=avatar_id, avatar_path=path, message=message, mock=mock, engine=engine)

    def prepare_for_musetalk(self, avatar_id: str, *, progress: Progress | None = None, cancel: threading.Event | None = None) -> bool:
        """Prepare an avatar that is there already; False if that was done before. progress: 0..1.

        Raises AvatarNotFound, AvatarDamaged, WeightsMissing, WeightsDamaged, DiskFull, Cancelled, GpuserverError.
        """
        version = self._shelf.version(avatar_id)
        with writing_below(self._shelf.root):
            return self.latents.make(avatar_id, version, Watch(progress, cancel=cancel), self._room_for(None))

    def _room_for(self, replaced: str | None, finished: Path | None = None) -> int | None:
        """Bytes that AVATAR_MAX_DISK_GB leaves to a new avatar in the place of `replaced`; None: no limit is set.

        finished: the new avatar, to be counted instead of what is still in the making.
        """
        most = self._settings.avatar_max_disk_gb
        return None if most is None else int(most * 1024**3) - self._shelf.used_bytes(but=replaced, finished=finished)

    def _python(self) -> Interpreter:
        """What prepares avatars; looked for once, when the first one is made."""
        with self._choosing:
            if self._interpreter is None:
                self._interpreter = choose_interpreter(self._settings.musetalk_conda_env)
                if self._interpreter.shortfall is not None:
                    _log.warning("%s", self._interpreter.shortfall)
            return self._interpreter

    # ------------------------------------------------------------ looking

    def ids(self) -> list[str]:
        """All avatars, sorted."""
        return self._shelf.ids()

    def infos(self) -> list[AvatarInfo]:
        """What is known about all avatars, sorted by id. A damaged one is left out and logged."""
        infos = []
        for avatar_id in self.ids():
            try:
                infos.append(self.info(avatar_id))
            except AvatarNotFound:
                continue  # deleted meanwhile
            except AvatarDamaged as error:
                _log.warning("avatar %s is left out: %s", avatar_id, error.detail)
        return infos

    def info(self, avatar_id: str) -> AvatarInfo:
        """Raises AvatarNotFound, AvatarDamaged."""
        info = self.read(avatar_id, lambda version: self.latents.described(avatar_id, version, read_info(version)))
        used = self._shelf.last_used(avatar_id)
        last_used_at = None if used is None else datetime.fromtimestamp(used, UTC)
        # The name of the folder counts: a restored backup may have another one than it was made with.
        known = {"avatar_id": avatar_id, "avatar_path": str(self._shelf.root / avatar_id), "last_used_at": last_used_at}
        return info.model_copy(update=known | self._profiles.read(avatar_id).model_dump())

    def read(self, avatar_id: str, reader: Callable[[Path], Read]) -> Read:
        """What `reader` makes of the avatar's folder; once more if the avatar is replaced meanwhile. Raises AvatarNotFound."""
        while True:
            version = self._shelf.version(avatar_id)
            try:
                return reader(version)
            except (AvatarNotFound, AvatarDamaged):
                if self._shelf.version(avatar_id) == version:
                    raise

    def folder(self, avatar_id: str) -> Path:
        """The folder of the avatar's current version: never changed, deleted after a replacement. Raises AvatarNotFound."""
        return self._shelf.version(avatar_id)

    def preview(self, avatar_id: str) -> Path:
        """A JPEG file. Raises AvatarNotFound."""
        return self._shelf.version(avatar_id) / PREVIEW

    def made_film(self, avatar_id: str) -> Path | None:
        """The idle loop as an MP4 file if it has been made. Raises AvatarNotFound."""
        film = self._shelf.film(avatar_id)
        return film if film.is_file() else None

    def film(self, avatar_id: str, cancel: threading.Event | None = None) -> Path:
        """The idle loop as an MP4 file; made now, in a child process, if it is not there yet.

        Raises AvatarNotFound, Cancelled, GpuserverError.
        """
        with writing_below(self._shelf.root), self._shelf.filming(avatar_id):
            film = self._shelf.film(avatar_id)
            if not film.is_file():
                make_film(self._shelf.version(avatar_id), film, cancel)
        return film

    def choose(self, avatar_id: str | None, tutor_id: str) -> str:
        """The avatar of a session: the one asked for, else the newest of the tutor, else one that is named after the tutor.

        Raises AvatarNotFound, with the list of what exists.
        """
        return choose_avatar(avatar_id, tutor_id, self.ids(), self.infos)

    # ------------------------------------------------------------ changing

    def touch(self, avatar_id: str) -> None:
        """Note that the avatar is used now, where the disk allows it: a session does not depend on that. Raises AvatarNotFound."""
        try:
            self._shelf.touch(avatar_id)
        except OSError as error:
            _log.warning("the last use of avatar %s cannot be noted: %s", avatar_id, error.strerror)

    def delete(self, avatar_id: str) -> None:
        """Raises AvatarNotFound, NotWritable. Sessions that show the avatar keep its pictures until they end."""
        self._shelf.version(avatar_id)
        with writing_below(self._shelf.root):
            self._profiles.forget(avatar_id)  # before: a new avatar of this name may bring its own
            self._shelf.remove(avatar_id)
        _log.info("avatar %s deleted", avatar_id)


def _check_id(avatar_id: str) -> None:
    if not AVATAR_ID.fullmatch(avatar_id):
        raise InvalidAvatarId(f"{avatar_id[:80]!r} is not an avatar_id.")
