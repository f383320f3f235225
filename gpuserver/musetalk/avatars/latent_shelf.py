"""Where the latents of avatars stand on disk: beside the avatars, each folder bound to one version of one avatar and to how it was made.

data/avatars/.latents/<id>.<version>.<how>/  for example anna.1f3-18b4.V1.5-jaw-bisenet-0-10
data/avatars/.latents/.making/<process>/     folders that are being filled
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpuserver.musetalk.avatars.avatar_files import sync_folder
from gpuserver.musetalk.avatars.upload_folder import UploadFolder, sweep_uploads
from gpuserver.wire import MuseTalkPreparation


class LatentShelf:
    """Folders appear complete and in one step. Safe to use from several threads and processes at once."""

    def __init__(self, root: Path):
        self._root = root
        self._making = root / ".making"
        self._mine: UploadFolder | None = None
        self._opening = threading.Lock()

    def prepare(self) -> None:
        """Make the folders, and remove what killed processes were filling."""
        self._making.mkdir(parents=True, exist_ok=True)
        sweep_uploads(self._making)

    def place(self, avatar_id: str, version: str, how: MuseTalkPreparation) -> Path:
        """Where the latents of an avatar's version are, or will be. version: without dots, as an avatar_id."""
        made = f"{how.version}-{how.mask}-{how.parsing}-{how.bbox_shift}-{how.extra_margin}"
        return self._root / f"{avatar_id}.{version}.{made}"

    @contextmanager
    def making(self) -> Iterator[Path]:
        """An empty folder to fill; removed at the end unless it was published."""
        with self._opening:
            if self._mine is None:
                self._mine = UploadFolder(self._making)
            folder = self._mine.path / secrets.token_hex(8)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, place: Path) -> None:
        """Show a complete and durable folder at its place, unless another process was first with the same."""
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise
        sync_folder(self._root)

    def forget(self, avatar_id: str, version: str) -> None:
        """Remove all latents of an avatar's version. Readers that have them mapped keep them."""
        for folder in self._root.glob(f"{avatar_id}.{version}.*"):  # neither part has wildcards
            shutil.rmtree(folder, ignore_errors=True)  # what stays is swept at the next start

    def versions(self) -> list[tuple[str, str]]:
        """The avatars and versions that have latents."""
        names = {tuple(folder.name.split(".", 2)[:2]) for folder in self._root.iterdir() if not folder.name.startswith(".")}
        return [(name[0], name[1]) for name in sorted(names) if len(name) == 2]
