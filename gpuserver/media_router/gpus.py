"""Which GPUs a worker draws with: each its own, where there are at least as many as workers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NODE = re.compile(r"nvidia(\d+)")


def share_of(worker: int, workers: int, gpus: list[str]) -> Mapping[str, str]:
    """What the environment of worker `worker` (from 1) says about GPUs; nothing where they do not go round: all workers see all."""
    if len(gpus) < workers:
        return {}
    return {VISIBLE: ",".join(gpus[worker - 1 :: workers])}


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    numbers = sorted(int(match[1]) for node in devices.glob("nvidia*") if (match := _NODE.fullmatch(node.name)))
    return [str(index) for index, _ in enumerate(numbers)]  # CUDA counts those that are there
