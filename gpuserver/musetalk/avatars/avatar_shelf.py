"""Where avatars stand on disk, and how they appear, change and vanish in one step.

    data/avatars/<id>                    a symbolic link to .versions/<id>.<random>: the avatar, as everybody sees it
    data/avatars/.versions/<id>.<random> a folder that is filled, published, and never changed after that
    data/avatars/.locks/<id>             held by the process that is making this avatar
    data/avatars/.state/<id>             its time of change is when the avatar was last used
    data/avatars/.state/<id>.profile.json  what people say about it (avatar_profiles.py)
    data/avatars/.uploads/<random>/      videos on their way in, to one process
    data/avatars/.films/<id>.<version>.mp4  the idle loop as a film, made when it is first asked for
    data/avatars/.latents/               what MuseTalk needs of each avatar (latent_shelf.py)

A link is what makes replacing atomic: rename(2) swaps one link for another in one step on every file system, while a folder can
only be moved away and back, with a moment of nothing in between (and RENAME_EXCHANGE is neither in Python nor on every file system).
Creating the link is exclusive: of two creators exactly one wins. A plain folder (a restored backup) is an avatar as well.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gpuserver.errors import AvatarExists, AvatarNotFound, DiskFull, NotWritable
from gpuserver.musetalk.avatars.avatar_files import INFO, sync_folder
from gpuserver.musetalk.avatars.latent_shelf import LatentShelf
from gpuserver.musetalk.avatars.upload_folder import UploadFolder, sweep_uploads
from gpuserver.wire import AVATAR_ID

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST})  # the last two: a file stands in the way

_log = logging.getLogger(__name__)


class AvatarShelf:
    """The folder of all avatars. Safe to use from several threads and processes at once."""

    def __init__(self, root: Path):
        self.root = root.resolve()  # AVATARS_DIR may lie behind a link; paths are compared below
        self._uploads = self.root / ".uploads"
        self._upload_folder: UploadFolder | None = None
        self._opening = threading.Lock()
        self._versions = self.root / ".versions"
        self._locks = self.root / ".locks"
        self.state = self.root / ".state"
        self._films = self.root / ".films"
        self.latents = LatentShelf(self.root / ".latents")

    def prepare(self) -> None:
        """Make the folders, and remove what killed processes left behind."""
        for folder in (self.root, self._uploads, self._versions, self._locks, self.state, self._films):
            folder.mkdir(parents=True, exist_ok=True)
        self.latents.prepare()
        self._sweep()

    def uploads(self) -> Path:
        """This process's own folder for uploads, on the avatars' file system; made when it is first asked for."""
        with self._opening:
            if self._upload_folder is None:
                self._upload_folder = UploadFolder(self._uploads)
            return self._upload_folder.path

    def ids(self) -> list[str]:
        """All avatars, sorted. What is published is complete; a plain folder may be anything, so it must have a description."""
        if not self.root.is_dir():
            return []
        names = (entry.name for entry in self.root.iterdir() if entry.is_symlink() or (entry / INFO).is_file())
        return sorted(name for name in names if self._find(name) is not None)

    def version(self, avatar_id: str) -> Path:
        """The folder with the avatar's files as it is now; another one after a replacement. Raises AvatarNotFound."""
        version = self._find(avatar_id)
        if version is None:
            raise AvatarNotFound(f"There is no avatar {avatar_id!r}.")
        return version

    def exists(self, avatar_id: str) -> bool:
        return os.path.lexists(self.root / avatar_id)

    @contextmanager
    def making(self, avatar_id: str) -> Iterator[Path]:
        """An empty folder for a new version, for the only creator of this avatar; removed at the end unless published.

        Raises AvatarExists if another thread or process is making the same avatar.
        """
        with self._only_creator(avatar_id):
            folder = self._versions / f"{avatar_id}.{secrets.token_hex(8)}"
            folder.mkdir()
            try:
                yield folder
            finally:
                if not self._is_shown(folder):
                    self.latents.forget(avatar_id, self.version_key(folder))
                    _remove(folder)

    def publish(self, avatar_id: str, folder: Path, *, replace: bool) -> None:
        """Show a folder that making() gave, complete and durable, as the avatar. Raises AvatarExists."""
        shown, target = self.root / avatar_id, os.path.relpath(folder, self.root)
        sync_folder(self._versions)
        if not replace:
            try:
                shown.symlink_to(target)
            except FileExistsError:
                raise AvatarExists(f"There is an avatar {avatar_id!r} already.") from None
        else:
            self._replace(shown, target)
        sync_folder(self.root)

    def remove(self, avatar_id: str) -> None:
        """Delete the avatar. Readers that have it open keep it. Raises AvatarNotFound."""
        version = self.version(avatar_id)
        key = self.version_key(version)
        shown = self.root / avatar_id
        try:
            if shown.is_symlink():
                shown.unlink()
            else:  # a plain folder
                aside = self._versions / f"{avatar_id}.{secrets.token_hex(8)}"
                shown.rename(aside)
                version = aside
        except FileNotFoundError:
            raise AvatarNotFound(f"There is no avatar {avatar_id!r}.") from None
        sync_folder(self.root)
        (self.state / avatar_id).unlink(missing_ok=True)
        self._forget_films(avatar_id)
        self.latents.forget(avatar_id, key)
        _remove(version)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """One creator at a time looks whether its finished avatar finds room, and publishes it; the others wait."""
        with FileLock(self._locks / ".publishing", thread_local=False):  # no avatar_id begins with a dot
            yield

    def used_bytes(self, *, but: str | None = None, finished: Path | None = None) -> int:
        """What all avatars take on disk, those in the making as well; without the one named `but`.

        finished: a version that is about to be published; others in the making do not count then, for their turn comes later.
        """
        left_out = {self._uploads, None if but is None else self._find(but)}
        if finished is not None:
            left_out |= {version for version in self._versions.iterdir() if version != finished and not self._is_shown(version)}
        total = 0
        for folder, names, files in os.walk(self.root):
            here = Path(folder)
            names[:] = [name for name in names if here / name not in left_out]
            total += sum(_size(here / file) for file in files)
        return total

    def touch(self, avatar_id: str) -> None:
        """Note that the avatar is used now. Raises AvatarNotFound."""
        self.version(avatar_id)
        (self.state / avatar_id).touch()

    def last_used(self, avatar_id: str) -> float | None:
        """Unix time, or None."""
        try:
            return (self.state / avatar_id).stat().st_mtime
        except OSError:
            return None

    def film(self, avatar_id: str) -> Path:
        """Where the film of the avatar's current version is, or will be. Raises AvatarNotFound."""
        return self._film_of(avatar_id, self.version(avatar_id))

    @contextmanager
    def filming(self, avatar_id: str) -> Iterator[None]:
        """Only one at a time makes the film of an avatar; the others wait."""
        with FileLock(self._locks / f"{avatar_id}.film", thread_local=False):
            yield

    def version_key(self, version: Path) -> str:
        """A name of the version in that folder, without dots; no two folders have had the same. Raises AvatarNotFound."""
        try:
            status = version.stat()
        except FileNotFoundError:
            raise AvatarNotFound("The avatar has gone.") from None
        return f"{status.st_ino:x}-{status.st_mtime_ns:x}"

    def _film_of(self, avatar_id: str, version: Path) -> Path:
        return self._films / f"{avatar_id}.{self.version_key(version)}.mp4"

    def _forget_films(self, avatar_id: str, but: Path | None = None) -> None:
        """Remove the films of an avatar's former versions."""
        for film in self._films.glob(f"{avatar_id}.*"):  # an avatar_id has neither dots nor wildcards
            if film != but:
                film.unlink(missing_ok=True)

    def _find(self, avatar_id: str) -> Path | None:
        shown = self.root / avatar_id
        while AVATAR_ID.fullmatch(avatar_id) and os.path.lexists(shown):
            version = shown.resolve()
            if version.is_dir():
                return version
            if shown.resolve() == version:  # a link that leads nowhere; else the avatar was replaced right now: look again
                return None
        return None

    def _replace(self, shown: Path, target: str) -> None:
        old = shown.resolve() if self.exists(shown.name) else None
        key = self.version_key(old) if old is not None and old.is_dir() else None
        link = self._versions / f"{shown.name}.{secrets.token_hex(8)}.link"
        link.symlink_to(target)
        if shown.is_dir() and not shown.is_symlink():  # a plain folder cannot be swapped in one step
            old = self._versions / f"{shown.name}.{secrets.token_hex(8)}"
            shown.rename(old)
        link.replace(shown)
        self._forget_films(shown.name)
        if key is not None:
            self.latents.forget(shown.name, key)
        if old is not None:
            _remove(old)

    @contextmanager
    def _only_creator(self, avatar_id: str) -> Iterator[None]:
        # flock(2): the lock of a killed process is free at once. The file stays; deleting it would let two processes hold two locks.
        lock = FileLock(self._locks / avatar_id, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise AvatarExists(f"The avatar {avatar_id!r} is being created right now.") from None
        try:
            yield
        finally:
            lock.release()

    def _is_shown(self, folder: Path) -> bool:
        return (self.root / folder.name.split(".")[0]).resolve() == folder

    def _sweep(self) -> None:
        """Remove versions that nobody shows and nobody is making, links that lead nowhere, and uploads that nobody receives."""
        for entry in self.root.iterdir():
            if entry.is_symlink() and not entry.exists():
                entry.unlink(missing_ok=True)
        for folder in self._versions.iterdir():
            try:
                with self._only_creator(folder.name.split(".")[0]):
                    if not self._is_shown(folder):
                        _remove(folder)
                        _log.info("removed an unfinished avatar: %s", folder.name)
            except AvatarExists:
                continue  # another process is working on it
        self._sweep_latents()
        for film in self._films.iterdir():
            avatar_id = film.name.split(".")[0]
            try:
                with FileLock(self._locks / f"{avatar_id}.film", thread_local=False).acquire(blocking=False):
                    version = self._find(avatar_id)
                    self._forget_films(avatar_id, but=None if version is None else self._film_of(avatar_id, version))
            except Timeout:
                continue  # another process is making it: a start does not wait for that
        sweep_uploads(self._uploads)

    def _sweep_latents(self) -> None:
        """Remove the latents of versions that nobody shows and nobody is making."""
        for avatar_id, key in self.latents.versions():
            try:
                with self._only_creator(avatar_id):
                    version = self._find(avatar_id)
                    if version is None or self.version_key(version) != key:
                        self.latents.forget(avatar_id, key)
            except AvatarExists:
                continue  # another process is making it


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Raises DiskFull or NotWritable instead of the OSError of a disk that is full or closed."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull("The disk is full.") from error
        if error.errno in CLOSED:
            raise NotWritable(f"Nothing can be written to {folder}: {os.strerror(error.errno)}.") from error
        raise


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except FileNotFoundError:  # removed meanwhile
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # what stays is swept at the next start
    else:
        path.unlink(missing_ok=True)
