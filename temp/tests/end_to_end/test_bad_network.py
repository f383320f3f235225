"""Chromium in a call over a network that loses every twentieth datagram and delays the others."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser
from running_server import RunningServer
from udp_relay import Network, UdpRelay
from viewer import Viewer

BAD = Network(loss=0.05, delay=0.1, jitter=0.03)
TEXT = "The moon moves around the earth once a month. A prime number has exactly two divisors. Please write down what you already know."


@contextmanager
def relay(network: Network) -> Iterator[UdpRelay]:
    """A relay that works beside the test: Playwright's calls block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def make() -> UdpRelay:
        return await UdpRelay(network).__aenter__()

    made = asyncio.run_coroutine_threadsafe(make(), loop).result(5)
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_sound_is_not_torn_and_the_picture_keeps_coming(browser: Browser, shared_server: RunningServer) -> None:
    with relay(BAD) as bad:
        viewer = Viewer(browser, shared_server.media_url, change=bad.redirect)
        viewer.wait(3)  # its buffers get used to the network
        viewer.say(TEXT)
        before = viewer.stats()
        viewer.wait(6)
        after, arrivals = viewer.stats(), viewer.arrivals(before["now"])
        viewer.close()
        assert bad.carried > 500
    heard = {
        name: after["audio"][name] - before["audio"][name] for name in ("totalSamplesReceived", "concealedSamples", "fecPacketsReceived")
    }
    assert heard["fecPacketsReceived"] > 0, "every packet of speech carries a copy of the one before"
    assert heard["concealedSamples"] < 0.2 * heard["totalSamplesReceived"]  # 1% where the machine has nothing else to do
    assert max(later - earlier for earlier, later in itertools.pairwise(arrivals)) < 2000  # ms
    assert after["video"]["framesDecoded"] - before["video"]["framesDecoded"] > 75
