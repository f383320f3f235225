import asyncio
from collections.abc import AsyncIterator

import pytest
from virtual_time import in_virtual_time, now

from gpuserver.pipeline.streams import CLOSING_SECONDS, Channel, closing


@in_virtual_time
async def test_a_full_channel_holds_its_writer_back() -> None:
    channel: Channel[int] = Channel(2)
    written: list[int] = []

    async def write() -> None:
        for number in range(5):
            await channel.put(number)
            written.append(number)
        await channel.end()

    writer = asyncio.create_task(write())
    await asyncio.sleep(1)
    assert written == [0, 1]
    assert [number async for number in channel] == [0, 1, 2, 3, 4]
    await writer


@in_virtual_time
async def test_a_stream_is_closed_when_its_reader_is_cancelled() -> None:
    closed: list[bool] = []

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
            yield 2
        finally:
            closed.append(True)

    async def read() -> None:
        async with closing(stream()) as items:
            async for _ in items:
                pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert closed == [True]


@in_virtual_time
async def test_a_stream_that_does_not_close_is_given_up() -> None:
    class Clinging:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await asyncio.sleep(3600)

    async with closing(Clinging()) as items:
        assert [item async for item in items] == []
    assert now() == pytest.approx(CLOSING_SECONDS)
