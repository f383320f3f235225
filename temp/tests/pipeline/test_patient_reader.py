"""A stream that is waited for in vain loses nothing, and is closed for certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from virtual_time import in_virtual_time, now

from gpuserver.pipeline.patient_reader import PatientReader


class Slow:
    """Gives 0, 1, 2 with a second before each. closed: whether its own clean-up ran."""

    def __init__(self, fails: bool = False) -> None:
        self.closed = False
        self._fails = fails

    async def stream(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(3):
                await asyncio.sleep(1)
                if self._fails:
                    raise ValueError("broken")
                yield number
        finally:
            self.closed = True


@in_virtual_time
async def test_what_was_waited_for_in_vain_comes_later() -> None:
    slow = Slow()
    reader = PatientReader(slow.stream())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await reader.next(0.3)
    assert [await reader.next(5), await reader.next(5), await reader.next(5), await reader.next(5)] == [0, 1, 2, None]
    assert now() == pytest.approx(3.0)
    await reader.aclose()


@in_virtual_time
async def test_a_reader_that_leaves_closes_the_stream_it_waits_for() -> None:
    slow = Slow()
    reader = PatientReader(slow.stream())
    with pytest.raises(TimeoutError):
        await reader.next(0.3)
    await reader.aclose()
    assert slow.closed
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_a_failure_that_nobody_waits_for_any_more_is_dropped_quietly() -> None:
    reader = PatientReader(Slow(fails=True).stream())
    with pytest.raises(TimeoutError):
        await reader.next(0.3)
    await asyncio.sleep(2)
    await reader.aclose()


@in_virtual_time
async def test_a_failure_reaches_the_one_who_waits() -> None:
    reader = PatientReader(Slow(fails=True).stream())
    with pytest.raises(ValueError, match="broken"):
        await reader.next(5)
    await reader.aclose()
