"""Which GPUs there are: each has a renderer process of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NODE = re.compile(r"nvidia(\d+)")


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    numbers = sorted(int(match[1]) for node in devices.glob("nvidia*") if (match := _NODE.fullmatch(node.name)))
    return [str(index) for index, _ in enumerate(numbers)]  # CUDA counts those that are there


def environments(gpus: list[str]) -> list[Mapping[str, str]]:
    """What the environment of each renderer process says about GPUs. Where none is found one process looks for itself, and says why not."""
    return [{VISIBLE: gpu} for gpu in gpus] or [{}]
