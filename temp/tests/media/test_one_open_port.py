"""Real calls through a router that lets one UDP port through and nothing else, in network namespaces, with Docker's address translation."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

PORT = 8200
PUBLIC, PUBLIC_V6 = "203.0.113.1", "2001:db8:2::2"
ENDS = Path(__file__).parents[1] / "call_end.py"

# The router: whoever sends to its port 8200 reaches the server. Over IPv6 the server has a public address of its own.
RULES = f"""
table ip translate {{
  chain in {{
    type nat hook prerouting priority -100;
    udp dport {PORT} ip daddr {PUBLIC} dnat to 10.9.0.2
  }}
}}
table inet only {{
  chain through {{
    type filter hook forward priority 0; policy drop;
    udp dport {PORT} accept
    udp sport {PORT} accept
    meta l4proto ipv6-icmp accept
  }}
}}
"""

LINKS = """
ip link add c0 netns {c} type veth peer name r0 netns {r}
ip link add s0 netns {s} type veth peer name r1 netns {r}
ip -n {c} addr add 203.0.113.2/24 dev c0
ip -n {r} addr add 203.0.113.1/24 dev r0
ip -n {r} addr add 10.9.0.1/24 dev r1
ip -n {s} addr add 10.9.0.2/24 dev s0
ip -n {c} addr add 2001:db8:1::2/64 dev c0 nodad
ip -n {r} addr add 2001:db8:1::1/64 dev r0 nodad
ip -n {r} addr add 2001:db8:2::1/64 dev r1 nodad
ip -n {s} addr add 2001:db8:2::2/64 dev s0 nodad
ip -n {c} link set c0 up
ip -n {r} link set r0 up
ip -n {r} link set r1 up
ip -n {s} link set s0 up
ip -n {c} link set lo up
ip -n {s} link set lo up
ip -n {s} route add default via 10.9.0.1
ip -n {s} -6 route add default via 2001:db8:2::1
ip -n {c} -6 route add default via 2001:db8:1::1
ip netns exec {r} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""


def run(command: str, **more: Any) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, **more)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[dict[str, str]]:
    """Names of three: c for the client, r for the router, s for the server."""
    missing = [program for program in ("ip", "nft", "sysctl") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt install iproute2 nftables procps)")
    names = {end: f"gpuserver-{end}-{os.getpid()}" for end in "crs"}
    try:
        for name in names.values():
            run(f"ip netns add {name}")
    except subprocess.CalledProcessError as error:
        remove(names)
        pytest.skip(f"this user may not make network namespaces: {error.stderr.decode().strip()}")
    try:
        for line in LINKS.strip().splitlines():
            run(line.format(**names))
        run(f"ip netns exec {names['r']} nft -f -", input=RULES.encode())
        yield names
    finally:
        remove(names)


def remove(names: dict[str, str]) -> None:
    for name in names.values():
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.asynccontextmanager
async def end(namespace: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One end of a call, in a namespace."""
    command = ["ip", "netns", "exec", namespace, sys.executable, str(ENDS), *arguments]
    pipe = asyncio.subprocess.PIPE
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONPATH": str(root)}, limit=1 << 20
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> bytes:
    """The next line of JSON; log lines are passed over."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while (line := await process.stdout.readline())[:1] not in (b'"', b"[", b"n"):
            assert line, "the process has ended"
    return line


async def call(namespaces: dict[str, str], *server: str, seconds: float = 15.0, without: str = "") -> list[Any] | None:
    """Where the client found the server once picture and sound came; None if nothing came. without: candidates that are kept from it."""
    async with end(namespaces["s"], "server", *server) as ours, end(namespaces["c"], "client", str(seconds)) as client:
        assert ours.stdin is not None
        assert client.stdin is not None
        ours.stdin.write(await said(client))
        answer: str = json.loads(await said(ours))
        kept = [line for line in answer.split("\r\n") if not (without and line.startswith("a=candidate:") and without in line.split()[4])]
        client.stdin.write(json.dumps("\r\n".join(kept)).encode() + b"\n")
        found: list[Any] | None = json.loads(await said(client))
        return found


async def test_one_open_port_is_enough_behind_address_translation(namespaces: dict[str, str]) -> None:
    assert await call(namespaces, str(PORT), PUBLIC, without=":") == [PUBLIC, PORT]


async def test_one_open_port_is_enough_over_ipv6(namespaces: dict[str, str]) -> None:
    assert await call(namespaces, str(PORT), without=".") == [PUBLIC_V6, PORT]


async def test_without_the_setting_nothing_gets_through_that_router(namespaces: dict[str, str]) -> None:
    assert await call(namespaces, "0", PUBLIC, seconds=3.0) is None
