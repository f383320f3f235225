"""Gets the official weight files: pinned revisions, resumed where the last run stopped, compared before they are put in place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gpuserver.errors import Conflict, DiskFull, UpstreamFailed, WeightsDamaged
from gpuserver.musetalk.avatars.avatar_shelf import writing_below
from gpuserver.musetalk.weight_files.model_check import Verdict, check_models, sha256_of, unusable
from gpuserver.musetalk.weight_files.model_files import ModelFile, Version, models_folder
from gpuserver.musetalk.weight_files.model_hub import Hub, Interrupted, Remote

Progress = Callable[[str, str, int, int], None]  # the file's path, "downloading" or "checking", bytes done, bytes in all

MARGIN_BYTES = 256 * 1024**2  # stays free for everybody else on this disk
PATIENCE = 4  # attempts in a row that bring nothing
LONGEST_PAUSE = 8.0  # seconds


def files_to_download(base: Path, version: Version) -> list[ModelFile]:
    """What replaces everything that this version uses and that is missing, or is there with another size than the official file."""
    reports = [report for report in check_models(base) if report.verdict is not Verdict.TRUNCATED]  # a copy; it is converted anew
    there = {report.path: report for report in reports}
    needs = unusable(reports, version, optional=True)
    return [next((file for file in need.choices if file.path in there and file.source), need.choices[0]) for need in needs]


class Downloader:
    """Downloads below `base`, one file after the other. pause: waits so many seconds before another attempt."""

    def __init__(
        self,
        base: Path,
        hub: Hub,
        *,
        progress: Progress = lambda _path, _stage, _done, _total: None,
        pause: Callable[[float], None] = time.sleep,
    ):
        self._models = models_folder(base)
        self._partials = self._models / ".partial"
        self._hub = hub
        self._progress = progress
        self._pause = pause

    def run(self, files: Sequence[ModelFile]) -> None:
        """Get these files; each one must have a source.

        Raises DiskFull before anything is fetched, UpstreamFailed if the hub cannot be reached or lacks a file (what has arrived
        stays for the next run), WeightsDamaged if a file is not the official one (it is removed), Conflict if another run is at it.
        """
        with writing_below(self._models), self._alone():
            self._require_room(files)
            for file in files:
                self._get(file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._partials.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._partials / ".lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise Conflict(f"Another download into {self._models} is running.", advice="Wait for it to end.") from None
        try:
            yield
        finally:
            lock.release()

    def _require_room(self, files: Sequence[ModelFile]) -> None:
        more = sum((file.size or 0) - _size(self._partial(file)) for file in files)
        free = shutil.disk_usage(self._models).free
        if more + MARGIN_BYTES > free:
            raise DiskFull(
                f"{more / 1e9:.1f} GB are needed in {self._models}, and 0.3 GB must stay free; {free / 1e9:.1f} GB are free.",
                advice="Make room, or let MUSETALK_BASE name a folder on a larger disk.",
            )

    def _get(self, file: ModelFile) -> None:
        partial = self._partial(file)
        remote = self._transfer(file, partial)
        expected = file.sha256 or remote.sha256
        if expected is not None and sha256_of(partial, self._report(file, "checking", _size(partial))) != expected:
            partial.unlink()
            raise WeightsDamaged(
                f"{file.path} as it arrived is not the official file (its sha256 differs); it was removed.",
                advice=f"Try again; if it happens again, {self._hub.endpoint} has another file than {file.page}.",
            )
        target = self._models / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)

    def _transfer(self, file: ModelFile, partial: Path) -> Remote:
        """All of the file into `partial`, with as many attempts as bring something."""
        if file.source is None:
            raise UpstreamFailed(f"{file.path} has to be fetched by hand.", advice=f"From {file.page}")
        failures = 0
        while True:
            before = _size(partial)
            try:
                remote = self._hub.ask(file.source)
                self._hub.fetch(remote, partial, self._report(file, "downloading", remote.size))
            except Interrupted as error:
                failures = 1 if _size(partial) > before else failures + 1
                if failures >= PATIENCE:
                    raise self._gives_up(file, error) from error
                self._pause(min(LONGEST_PAUSE, 2.0 ** (failures - 1)))
            else:
                return remote

    def _gives_up(self, file: ModelFile, error: Interrupted) -> UpstreamFailed:
        return UpstreamFailed(
            f"{file.path} cannot be downloaded: {error}.",
            advice="Check the network, or let HF_ENDPOINT name a mirror, and run this again; what has arrived is kept. "
            f"Or get {file.page} on another machine and copy it to {self._models / file.path}.",
        )

    def _report(self, file: ModelFile, stage: str, total: int | None) -> Callable[[int], None]:
        return lambda done: self._progress(file.path, stage, done, total or file.size or done)

    def _partial(self, file: ModelFile) -> Path:
        """Where the file grows. The revision is part of the name, so that bytes of another one are never continued."""
        revision = "" if file.source is None else file.source.revision[:12]
        return self._partials / f"{file.path.replace('/', '__')}.{revision}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
