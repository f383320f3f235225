"""A fixed number of places for what goes on at once; who finds none is turned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuserver.errors import GpuserverError


class Places:
    """most: how many there are. full: makes the refusal."""

    def __init__(self, most: int, full: Callable[[], GpuserverError]):
        self._most = most
        self._full = full
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place until the block ends. Raises what full() makes."""
        if self._taken >= self._most:
            raise self._full()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
