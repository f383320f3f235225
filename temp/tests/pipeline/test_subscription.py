import asyncio

from virtual_time import in_virtual_time

from gpuserver.messages import Pong, TextStream
from gpuserver.pipeline.subscription import LEFT, TOO_SLOW, Subscription


def event(number: int) -> TextStream:
    return TextStream(turn=1, delta=str(number))


@in_virtual_time
async def test_events_arrive_in_order_and_end_with_the_subscription() -> None:
    subscription = Subscription(lambda _: None)
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    for number in range(3):
        subscription.offer(event(number))
    subscription.close("deleted")
    assert [await reader, *[each async for each in subscription]] == [event(0), event(1), event(2)]
    assert subscription.reason == "deleted"


@in_virtual_time
async def test_a_reader_that_does_not_keep_up_is_let_go() -> None:
    closed: list[Subscription] = []
    subscription = Subscription(closed.append, limit=3)
    for number in range(5):
        subscription.offer(event(number))
    assert closed == [subscription]
    assert subscription.reason == TOO_SLOW
    assert [each async for each in subscription] == []


@in_virtual_time
async def test_a_reader_that_leaves_hears_nothing_more() -> None:
    closed: list[Subscription] = []
    subscription = Subscription(closed.append)
    subscription.offer(Pong())
    await subscription.aclose()
    await subscription.aclose()
    subscription.offer(Pong())
    assert [each async for each in subscription] == []
    assert subscription.reason == LEFT
    assert closed == [subscription]


@in_virtual_time
async def test_a_waiting_reader_is_woken_by_the_end() -> None:
    subscription = Subscription(lambda _: None)

    async def read() -> list[object]:
        return [each async for each in subscription]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    subscription.close("idle")
    assert await reader == []
