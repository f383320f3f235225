"""Writes the official weights once more as half-precision safetensors: half the disk, a faster start, the names of our networks.

The format (safetensors): 8 bytes with the length of a JSON header, the header, then the tensors without gaps. It is written tensor by
tensor, so that memory holds one of them at a time and not 1.7 GB.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gpuserver.errors import DiskFull, WeightsDamaged
from gpuserver.musetalk.avatars.avatar_shelf import writing_below
from gpuserver.musetalk.weight_files.model_check import Verdict, check_models
from gpuserver.musetalk.weight_files.model_files import CONVERTED_SUFFIX, NEEDS, Need, Version, models_folder
from gpuserver.musetalk.weight_files.weights import load_bisenet, load_unet, load_vae, load_whisper

Loader = Callable[[Path], nn.Module]  # MUSETALK_BASE -> a network with its parameters mapped from disk

MARGIN_BYTES = 256 * 1024**2  # stays free for everybody else on this disk
_ALIGNMENT = 8  # bytes; the header is filled up with spaces
_NAMES = {torch.float16: "F16", torch.int64: "I64"}

LOADERS: Mapping[str, Loader] = {
    "UNet V1.5": lambda base: load_unet(base, Version.V15, dtype=torch.float32),
    "UNet V1.0": lambda base: load_unet(base, Version.V10, dtype=torch.float32),
    "VAE": lambda base: load_vae(base, dtype=torch.float32),
    "Whisper tiny": lambda base: load_whisper(base, dtype=torch.float32),
    "BiSeNet": lambda base: load_bisenet(base, dtype=torch.float32),
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file before and after; sizes in bytes."""

    original: Path
    converted: Path
    size_before: int
    size_after: int


def convert_models(base: Path, loaders: Mapping[str, Loader] = LOADERS) -> Iterator[Conversion]:
    """Convert what is there and has not been converted, one file at a time. A converted file that is truncated is made anew.

    Raises WeightsDamaged for a file that is not the network it should be, DiskFull; nothing half-written stays.
    """
    for report in check_models(base):
        if report.verdict is Verdict.TRUNCATED:
            (models_folder(base) / report.path).unlink()
    for need in NEEDS:
        original = need.found(base)
        if original is not None and not original.name.endswith(CONVERTED_SUFFIX):
            yield _convert(need, original, loaders[need.name](base))


def _convert(need: Need, original: Path, network: nn.Module) -> Conversion:
    converted = original.with_name(original.stem + CONVERTED_SUFFIX)
    with writing_below(converted.parent):
        _write(network.state_dict(), converted, {"network": need.name, "made_from": original.name})
    return Conversion(original, converted, original.stat().st_size, converted.stat().st_size)


def _write(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Whole or not at all."""
    header = _header(state, metadata)
    _require_room(path.parent, sum(_bytes(tensor) for tensor in state.values()))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("xb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for name, tensor in state.items():
                file.write(_halved(name, tensor, path).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _header(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in state.items():
        end = offset + _bytes(tensor)
        entries[name] = {"dtype": _NAMES[_kind(tensor)], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % _ALIGNMENT)


def _halved(name: str, tensor: Tensor, path: Path) -> Tensor:
    half = tensor.detach().to(_kind(tensor)).contiguous()
    if half.is_floating_point() and not torch.isfinite(half).all():
        raise WeightsDamaged(f"{name} has numbers that half precision cannot hold; {path} is not written.")
    return half


def _kind(tensor: Tensor) -> torch.dtype:
    """Numbers become float16; counters stay integers."""
    return torch.float16 if tensor.is_floating_point() else torch.int64


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * _kind(tensor).itemsize


def _require_room(folder: Path, more: int) -> None:
    free = shutil.disk_usage(folder).free
    if more + MARGIN_BYTES > free:
        raise DiskFull(f"{more / 1e9:.1f} GB are needed in {folder}, and 0.3 GB must stay free; {free / 1e9:.1f} GB are free.")
