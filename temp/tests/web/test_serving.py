"""One application as a process: it binds, serves and stops."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from running_server import free_ports

from gpuserver.errors import CannotStart
from gpuserver.web.lifeline import READY
from gpuserver.web.serving import STOP_SIGNALS, serve

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _no_alarm() -> Iterator[None]:
    yield
    signal.alarm(0)  # stopping sets one that would end this process


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_it_serves_until_a_signal_and_cleans_up(number: signal.Signals) -> None:
    steps: list[str] = []

    async def resource(_app: web.Application) -> AsyncIterator[None]:
        steps.append("started")
        yield
        steps.append("closed")

    app = web.Application()
    app.cleanup_ctx.append(resource)

    def ready() -> None:
        steps.append("ready")
        os.kill(os.getpid(), number)

    await asyncio.wait_for(serve(app, "MEDIA", "127.0.0.1", unused_port(), on_ready=ready), 30)
    assert steps == ["started", "ready", "closed"]


async def test_it_listens_on_further_ports_and_names_the_one_that_is_in_use() -> None:
    first, second = free_ports(2)

    def ready() -> None:
        for port in (first, second):
            socket.create_connection(("127.0.0.1", port)).close()
        os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(serve(web.Application(), "MEDIA", "127.0.0.1", first, more_ports={"TTS": second}, on_ready=ready), 30)
    with socket.create_server(("127.0.0.1", second)), pytest.raises(CannotStart, match=f"Port {second}") as refused:
        await serve(web.Application(), "MEDIA", "127.0.0.1", first, more_ports={"TTS": second})
    assert "TTS_PORT" in refused.value.advice


async def test_a_port_in_use_is_a_plain_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotStart, match="is in use"):
        await serve(web.Application(), "MEDIA", "127.0.0.1", taken.getsockname()[1])


def test_the_lifeline_says_ready_and_ends_the_process_with_its_supervisor() -> None:
    code = "from gpuserver.web.lifeline import Lifeline; import signal; Lifeline().ready(); signal.pause()"
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", code], stdin=theirs.fileno(), cwd=ROOT) as process:
        theirs.close()
        assert ours.recv(64) == READY
        assert process.poll() is None
        ours.close()
        assert process.wait(60) == -signal.SIGTERM


def test_a_process_ends_also_with_a_supervisor_that_has_not_heard_it() -> None:
    """A socket that closes with something unread in it resets the connection instead of ending it."""
    code = "from gpuserver.web.lifeline import Lifeline; import signal; Lifeline().ready(); signal.pause()"
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", code], stdin=theirs.fileno(), cwd=ROOT) as process:
        theirs.close()
        assert select.select([ours], [], [], 60)[0]
        ours.close()
        try:
            assert process.wait(60) == -signal.SIGTERM
        finally:
            process.kill()


def test_the_lifeline_is_not_held_open_by_children_of_the_process() -> None:
    code = "from gpuserver.web.lifeline import Lifeline; import subprocess; Lifeline(); subprocess.Popen(['sleep', '60'])"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([sys.executable, "-c", code], stdin=theirs.fileno(), cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)
        theirs.close()
        ours.settimeout(30)
        assert ours.recv(64) == b""
