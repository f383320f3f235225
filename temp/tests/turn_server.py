"""A real TURN server, coturn, on loopback for as long as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from own_certificate import make_certificate

USERNAME, PASSWORD = "tutor", "relayed"
FIRST_RELAY_PORT, LAST_RELAY_PORT = 42_000, 42_099


@dataclass(frozen=True, slots=True)
class TurnServerAt:
    """secure_port: over TLS, with a certificate of its own."""

    port: int
    secure_port: int
    process: asyncio.subprocess.Process

    @property
    def secure_address(self) -> str:
        return f"turns:127.0.0.1:{self.secure_port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def turn_server(folder: Path, *options: str) -> AsyncIterator[TurnServerAt]:
    """Listens on 127.0.0.1 over UDP, TCP and TLS and relays to it. Its certificate is fullchain.pem in `folder`."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed: apt install coturn")
    port, secure_port, certificate = free_port(), free_port(), make_certificate(folder)
    fixed = "--realm=test --no-dtls --no-cli --allow-loopback-peers --log-file=stdout -n -a"
    process = await asyncio.create_subprocess_exec(
        program,
        *fixed.split(),
        "--listening-ip=127.0.0.1",
        "--relay-ip=127.0.0.1",
        f"--listening-port={port}",
        f"--tls-listening-port={secure_port}",
        f"--cert={certificate}",
        f"--pkey={certificate.with_name('privkey.pem')}",
        f"--min-port={FIRST_RELAY_PORT}",
        f"--max-port={LAST_RELAY_PORT}",
        f"--user={USERNAME}:{PASSWORD}",
        f"--userdb={folder / 'turn.db'}",
        f"--pidfile={folder / 'turn.pid'}",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(10):
            await _said(process.stdout, b"auth thread")
        yield TurnServerAt(port, secure_port, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _said(output: asyncio.StreamReader | None, words: bytes) -> None:
    assert output is not None
    while words not in (line := await output.readline()):
        assert line, "coturn does not start"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
