"""What systemd hears of a process: on a real datagram socket, as NOTIFY_SOCKET names it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from gpuserver.systemd import ServiceManager
from gpuserver.web.serving import serve


class Listener:
    """systemd's end of the socket."""

    def __init__(self, channel: socket.socket):
        self._channel = channel

    def heard(self) -> list[bytes]:
        """What has arrived so far."""
        states = []
        while True:
            try:
                states.append(self._channel.recv(64))
            except BlockingIOError:
                return states

    async def next(self) -> bytes:
        """The next message; waits for it."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._channel, 64), 30)


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.bind(address)
        yield Listener(channel)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with listening(str(tmp_path / "notify")) as listener:
        yield listener


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


async def test_a_server_is_ready_when_it_answers_and_says_that_it_stops(
    listener: Listener, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", environment["NOTIFY_SOCKET"])
    port, heard_before_ready = unused_port(), [b"nothing"]

    def now_it_listens() -> None:
        socket.create_connection(("127.0.0.1", port)).close()
        heard_before_ready[:] = listener.heard()

    serving = asyncio.create_task(serve(web.Application(), "MEDIA", "127.0.0.1", port, on_ready=now_it_listens))
    assert await listener.next() == b"READY=1"
    assert heard_before_ready == []
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    signal.alarm(0)  # stopping sets one that would end this process
    assert listener.heard() == [b"STOPPING=1"]


async def test_the_event_loop_gives_signs_of_life_and_a_stuck_one_gives_none(listener: Listener, environment: dict[str, str]) -> None:
    manager = ServiceManager({**environment, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())})
    manager.ready()
    assert [await listener.next() for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
    listener.heard()
    time.sleep(0.3)  # the loop is stuck: three times the period
    assert listener.heard() == []
    assert await listener.next() == b"WATCHDOG=1"
    manager.stopping()
    while await listener.next() != b"STOPPING=1":
        pass


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}], ids=["none", "of another", "damaged"]
)
async def test_signs_of_life_are_given_only_where_they_are_wanted(
    listener: Listener, environment: dict[str, str], watchdog: dict[str, str]
) -> None:
    manager = ServiceManager({**environment, **watchdog})
    manager.ready()
    manager.stopping()
    assert listener.heard() == [b"READY=1", b"STOPPING=1"]


async def test_an_abstract_address_is_understood() -> None:
    name = f"gpuserver-test-{os.getpid()}"
    with listening("\0" + name) as listener:
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listener.heard() == [b"READY=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
async def test_without_systemd_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    manager.ready()
    manager.stopping()
