"""The place of the spare engine in a process that has none: the workers have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from gpuserver.domain import MouthJob
from gpuserver.errors import DeviceLost


class NothingToSpare:
    """Implements LipSyncEngine. It is asked when no device is left."""

    name = "none"
    max_batch = 1

    def listener(self) -> NoReturn:
        raise DeviceLost("No device is left.")

    def rest(self) -> NoReturn:
        raise DeviceLost("No device is left.")

    def render(self, jobs: Sequence[MouthJob]) -> NoReturn:
        raise DeviceLost("No device is left.")
