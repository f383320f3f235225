"""A pool of threads with an end to its queue."""

from __future__ import annotations

import threading

import pytest

from gpuserver.errors import TooManyJobs
from gpuserver.web.bounded_pool import BoundedPool


def test_what_runs_and_what_waits_is_bounded_and_every_end_makes_room() -> None:
    go = threading.Event()
    with BoundedPool(2, "work", most_queued=1) as pool:
        first, second, waiting = (pool.submit(go.wait, 10) for _ in range(3))
        with pytest.raises(TooManyJobs, match="3 avatars") as refused:
            pool.submit(go.wait, 10)
        assert refused.value.retry_after
        assert waiting.cancel()
        pool.check_room()
        failing = pool.submit(lambda: 1 // 0)
        with pytest.raises(TooManyJobs):
            pool.check_room()
        go.set()
        assert first.result(10)
        assert second.result(10)
        assert isinstance(failing.exception(10), ZeroDivisionError)
    pool.check_room()
