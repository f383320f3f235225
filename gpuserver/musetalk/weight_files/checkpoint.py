"""Reads a weight file into tensors by name and never runs what is inside: torch files with `weights_only`, and safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gpuserver.errors import WeightsDamaged, WeightsMissing

State = dict[str, Tensor]

_ZIP = b"PK\x03\x04"  # how torch's files begin since 1.6; only these can be mapped
_OPENAI = "model_state_dict"  # where OpenAI's Whisper files keep the tensors, beside "dims"

# What torch and safetensors raise at bytes that are not a weight file; a hostile pickle reaches any of them.
_NOT_READABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    zipfile.BadZipFile,
)


def read_checkpoint(path: Path) -> State:
    """Every tensor of the file by its name in the file, mapped from disk where the format allows it.

    While such tensors live the file must not be changed in place; replacing it by another file is fine.
    Raises WeightsMissing, and WeightsDamaged for a file that is truncated, is not a weight file, or holds anything but plain tensors.
    """
    if not path.is_file():
        raise WeightsMissing(f"There is no weight file {path}.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get(_OPENAI), Mapping):
        content = content[_OPENAI]
    if not isinstance(content, Mapping) or not content:
        raise WeightsDamaged(f"{path} holds a {type(content).__name__}, not tensors by name.")
    odd = next((name for name, value in content.items() if not isinstance(name, str) or not _is_plain(value)), None)
    if odd is not None:
        raise WeightsDamaged(f"{path} holds something other than a plain tensor under {ascii(odd)[:100]}.")
    return {name: tensor.detach() for name, tensor in content.items()}


def _read_torch(path: Path) -> object:
    try:
        with path.open("rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP
        if mapped and _has_compressed_parts(path):
            raise WeightsDamaged(f"{path} has compressed parts, which torch never writes; nothing of it was read.")
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsDamaged(f"{path} is not a file of plain tensors; nothing of it was run.") from error
    except OSError as error:
        raise WeightsDamaged(f"{path} cannot be read: {error.strerror or error}.") from error
    except _NOT_READABLE as error:
        raise WeightsDamaged(f"{path} is truncated, or no weight file at all.") from error
    return content


def _has_compressed_parts(path: Path) -> bool:
    """Such a file of 1 MB may fill 1 GB of memory, and what is mapped of it is not what it holds."""
    with zipfile.ZipFile(path) as parts:
        return any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist())


def _read_safetensors(path: Path) -> object:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsDamaged(f"{path} cannot be read: {error.strerror or error}.") from error
    except (safetensors.SafetensorError, *_NOT_READABLE) as error:
        raise WeightsDamaged(f"{path} is truncated, or no safetensors file at all.") from error


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
