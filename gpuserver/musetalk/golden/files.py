"""A folder of golden data, its files, and what is found when ours is compared with theirs."""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the result. name: file and array. error: the largest deviation; both in the array's own unit. note: what else to say."""

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Not so for an error that is no number."""
        return self.error <= self.tolerance


class GoldenFile:
    """The arrays of one file by name, and which of them have been used and compared."""

    def __init__(self, name: str, arrays: Mapping[str, Array]):
        self.name = name
        self.arrays = arrays
        self._used: set[str] = set()
        self._checks: list[Check] = []

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def use(self, name: str) -> Array:
        """An array that ours is computed from. Raises KeyError."""
        self._used.add(name)
        return self.arrays[name]

    def compare(self, name: str, ours: ArrayLike, tolerance: float) -> None:
        """Compare every element with the array of that name; nothing happens where the file does not have it."""
        if name in self.arrays:
            self.note(name, largest_difference(np.asarray(ours), self.arrays[name]), tolerance)

    def note(self, name: str, error: float, tolerance: float, note: str = "") -> None:
        """Add a line about the array `name`, measured in another way."""
        self._used.add(name)
        self._checks.append(Check(f"{self.name} {name}", error, tolerance, note))

    def fail(self, reason: str) -> None:
        """Add a line about the whole file."""
        self._checks.append(Check(self.name, math.inf, 0, reason))

    def result(self) -> list[Check]:
        """All lines. An array that nothing used fails, and so does a file in which nothing was compared."""
        compared = {check.name for check in self._checks}
        names = [(name, f"{self.name} {name}") for name in self.arrays]
        inputs = [Check(line, 0, 0, "input of the others") for name, line in names if name in self._used and line not in compared]
        unknown = [Check(line, math.inf, 0, "unknown: nothing to compare it with") for name, line in names if name not in self._used]
        nothing = [] if self._checks else [Check(self.name, math.inf, 0, "nothing in it can be compared")]
        return [*self._checks, *inputs, *unknown, *nothing]


class GoldenFolder:
    """Gives files access to arrays of others: one sound, one picture and one class map serve them all."""

    def __init__(self, directory: Path):
        self.directory = directory

    @cached_property
    def files(self) -> list[Path]:
        """What is to be checked, in order: all but texts and the formula's Python file."""
        texts = {".md", ".py"}
        return sorted(path for path in self.directory.iterdir() if path.suffix not in texts and path.name != "__pycache__")

    def array(self, kind: str, name: str, beside: GoldenFile) -> Array | None:
        """The array of that name in a file of that kind, else None. blending_2.npz finds that of mel_2.npz before that of mel.npz."""
        candidates = [path for path in self.files if path.suffix == ".npz" and path.name.startswith(kind)]
        for path in sorted(candidates, key=lambda path: (_number(path.name) != _number(beside.name), path.name)):
            arrays = read_arrays(path)
            if name in arrays:
                return arrays[name]
        return None


def _number(name: str) -> str:
    found = re.search(r"_(\d+)\.", name)
    return found[1] if found else ""


def read_arrays(path: Path) -> dict[str, Array]:
    """Raises ValueError for what is no file of plain arrays."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def read_json(path: Path) -> object:
    """Also compressed (.gz). Raises ValueError."""
    try:
        content = path.read_bytes()
        value: object = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    return value


def largest_difference(ours: Array, golden: Array) -> float:
    """Infinite where the shapes differ or there are no numbers; what float16 rounded away of the golden array is no difference."""
    if ours.shape != golden.shape or not all(_is_numeric(array) for array in (ours, golden)):
        return math.inf
    if golden.size == 0:
        return 0
    difference = np.abs(ours.astype(np.float64) - golden.astype(np.float64))
    if golden.dtype == np.float16:
        difference = np.maximum(difference - np.spacing(np.abs(golden)).astype(np.float64) / 2, 0)
    return float(difference.max())


def mean_difference(ours: Array, golden: Array) -> float:
    """As largest_difference(), on average."""
    if ours.shape != golden.shape or not all(_is_numeric(array) for array in (ours, golden)) or golden.size == 0:
        return math.inf
    return float(np.abs(ours.astype(np.float64) - golden.astype(np.float64)).mean())


def _is_numeric(array: Array) -> bool:
    return array.dtype.kind in "biuf"
