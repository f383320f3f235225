"""The threads that make avatars and films: a few at once, a fixed number of others waits, more are turned away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from gpuserver.errors import TooManyJobs

MOST_QUEUED = 16
RETRY_AFTER_SECONDS = 15

P = ParamSpec("P")
T = TypeVar("T")


class BoundedPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose queue ends somewhere. Jobs and clients that wait stand in the same one.

    products: what is made, in the words of the refusal.
    """

    def __init__(self, at_once: int, name: str, *, most_queued: int = MOST_QUEUED, products: str = "avatars"):
        super().__init__(at_once, thread_name_prefix=name)
        self._products = products
        self._most = at_once + most_queued
        self._unfinished = 0
        self._counting = threading.Lock()

    @property
    def unfinished(self) -> int:
        """How much runs or waits."""
        return self._unfinished

    def check_room(self) -> None:
        """Raises TooManyJobs."""
        if self._unfinished >= self._most:
            raise TooManyJobs(f"{self._unfinished} {self._products} are being made or wait for it.", retry_after=RETRY_AFTER_SECONDS)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As Executor.submit. Raises TooManyJobs."""
        with self._counting:
            self.check_room()
            future = super().submit(fn, *args, **kwargs)
            self._unfinished += 1
        future.add_done_callback(self._finish)
        return future

    def _finish(self, _future: Future[T]) -> None:
        with self._counting:
            self._unfinished -= 1
