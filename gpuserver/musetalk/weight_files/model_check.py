"""Looks at the weight files below MUSETALK_BASE/models without loading them: their sizes, and their hashes on request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gpuserver.musetalk.weight_files.model_files import NEEDS, ModelFile, Need, Version, models_folder, needs_of

CHUNK_BYTES = 1 << 20
_HEADER_LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header, little-endian
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit

Progress = Callable[[str, int], None]  # is told a file's path below MUSETALK_BASE/models, and how many of its bytes have been read


class Verdict(StrEnum):
    """What can be said of a file."""

    GOOD = "good"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_HASH = "wrong sha256"
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True)
class FileReport:
    """One line of the table. sha256: "matches", "differs", "not computed", or "unknown" where the official one is not known."""

    need: Need
    path: str  # below MUSETALK_BASE/models
    size: int | None  # bytes; None if it is missing
    official_size: int | None
    verdict: Verdict
    sha256: str = "not computed"

    @property
    def usable(self) -> bool:
        return self.verdict is Verdict.GOOD


def check_models(base: Path, *, hashes: bool = False, progress: Progress = lambda _path, _done: None) -> list[FileReport]:
    """What is there and what is missing, need by need; a missing need is reported under the file that would be downloaded.

    hashes: also read every file whole (4 GB) and compare; `progress` is told how far that is.
    """
    reports: list[FileReport] = []
    for need in NEEDS:
        found = list(_check_need(base, need, hashes, progress))
        first = need.choices[0]
        reports += found or [FileReport(need, first.path, None, first.size, Verdict.MISSING)]
    return reports


def unusable(reports: Sequence[FileReport], version: Version, *, optional: bool = False) -> list[Need]:
    """What this version needs and cannot load. Of several files of a need the first one reported is what would be loaded."""
    loaded = {report.need.name: report for report in reversed(reports)}
    return [need for need in needs_of(version, optional=optional) if need.name not in loaded or not loaded[need.name].usable]


def sha256_of(path: Path, read: Callable[[int], None] = lambda _done: None) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits. read: is told how many bytes have been read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            read(file.tell())
    return digest.hexdigest()


def _check_need(base: Path, need: Need, hashes: bool, progress: Progress) -> Iterator[FileReport]:
    """In the order in which Need.found() looks."""
    folder = models_folder(base)
    for name in dict.fromkeys(file.converted for file in need.choices):
        if (folder / name).is_file():
            yield _check_converted(need, name, folder / name)
    for file in need.choices:
        if (folder / file.path).is_file():
            yield _check_official(need, file, folder / file.path, hashes, progress)


def _check_official(need: Need, file: ModelFile, path: Path, hashes: bool, progress: Progress) -> FileReport:
    size = path.stat().st_size
    verdict, state = Verdict.GOOD, "not computed" if file.sha256 else "unknown"
    if file.size is not None and size != file.size:
        verdict = Verdict.WRONG_SIZE
    elif hashes and file.sha256 is not None:
        matches = sha256_of(path, lambda done: progress(file.path, done)) == file.sha256
        state = "matches" if matches else "differs"
        verdict = Verdict.GOOD if matches else Verdict.WRONG_HASH
    return FileReport(need, file.path, size, file.size, verdict, state)


def _check_converted(need: Need, name: str, path: Path) -> FileReport:
    verdict = Verdict.GOOD if _is_whole_safetensors(path) else Verdict.TRUNCATED
    return FileReport(need, name, path.stat().st_size, None, verdict, "unknown")


def _is_whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its own header says (the format: length, JSON header, tensors without gaps)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        if not 0 < length < min(_LONGEST_HEADER, path.stat().st_size):
            return False
        try:
            header = json.loads(file.read(length))
            end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
    return bool(path.stat().st_size == _HEADER_LENGTH_BYTES + length + end)
