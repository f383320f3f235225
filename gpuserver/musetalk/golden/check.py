"""Compares our runtime with every array of a folder of golden data, files it has never seen included."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from gpuserver.musetalk.golden.faces import check_bisenet, check_blending, check_boxes, check_masks
from gpuserver.musetalk.golden.files import Check, GoldenFile, GoldenFolder, read_arrays, read_json
from gpuserver.musetalk.golden.networks import check_manifest
from gpuserver.musetalk.golden.pipeline import check_pipeline
from gpuserver.musetalk.golden.sound import check_mel, check_windows

Kind = TypeVar("Kind")

__all__ = ["Check", "check_golden"]

# What a file holds, by the beginning of its name.
_ARRAYS: Mapping[str, Callable[[GoldenFile, GoldenFolder], None]] = {
    "audio_chunk_index": check_windows,
    "mel": check_mel,
    "bisenet": check_bisenet,
    "parsing_masks": check_masks,
    "blending": check_blending,
    "pipeline_tiny": check_pipeline,
    "pipeline_full": check_pipeline,
}
_JSON: Mapping[str, Callable[[GoldenFile, object], None]] = {"bbox_cases": check_boxes, "state_dict_manifest": check_manifest}


def check_golden(directory: Path) -> list[Check]:
    """One line per array at least, in the order of the files. All is well if there is a line and every line is ok.

    A file or array that is not known fails, as does one that cannot be read; only .md and .py files are passed over. The full
    networks take 5 GB of memory and a minute or two.
    """
    if not directory.is_dir():
        return [Check(str(directory), math.inf, 0, "there is no such folder")]
    folder = GoldenFolder(directory)
    lines = [line for path in folder.files for line in _check_file(path, folder)]
    return lines or [Check(str(directory), math.inf, 0, "there is no golden data in it")]


def _check_file(path: Path, folder: GoldenFolder) -> list[Check]:
    file = GoldenFile(path.name, {})
    try:
        if path.suffix == ".npz" and (check := _of_kind(path.name, _ARRAYS)):
            file = GoldenFile(path.name, read_arrays(path))
            check(file, folder)
        elif path.name.endswith((".json", ".json.gz")) and (check_content := _of_kind(path.name, _JSON)):
            check_content(file, read_json(path))
        else:
            file.fail("unknown: nothing to compare it with")
    except Exception as error:  # noqa: BLE001 - foreign arrays may lead to any error: it becomes a failed line
        file.fail(f"cannot be compared: {type(error).__name__}: {error}")
    return file.result()


def _of_kind(name: str, kinds: Mapping[str, Kind]) -> Kind | None:
    return next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), None)
