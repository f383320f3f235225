"""A way through the network, on this machine: what a client sends to it arrives at the server from an address that can change."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from types import TracebackType

from aioice.ice import get_host_addresses

Address = tuple[str, int]

LAN = get_host_addresses(use_ipv4=True, use_ipv6=False)[0]  # an address of this machine that is not loopback


def free_port() -> int:
    """A UDP port that nothing uses there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LAN, 0))
        return int(probe.getsockname()[1])


class NetworkPath:
    """A router with address translation in front of one client: `async with` it; then path.behind(offer) and path.through(answer)."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: Address | None = None
        self._outside: list[asyncio.DatagramTransport] = []
        self._server: Address | None = None
        self.open = True

    async def __aenter__(self) -> NetworkPath:
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_client), local_addr=(self._host, 0))
        await self.move()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for side in (self._inside, *self._outside):
            side.close()

    @staticmethod
    def behind(offer: str) -> str:
        """The client's SDP offer without its addresses, which are those of a network of its own: the server finds no other way."""
        return re.sub(r"a=candidate:.*\r\n", "", offer)

    def through(self, answer: str) -> str:
        """The server's SDP answer with this path in the place of its first UDP address, and none besides."""
        lines = [line for line in answer.splitlines() if line.startswith("a=candidate:")]
        _, _, _, _, host, port, *_ = lines[0].split()
        self._server = (host, int(port))
        own, own_port = self._inside.get_extra_info("sockname")[:2]
        kept = re.sub(r"a=candidate:.*\r\n", "", answer)
        return kept.replace("a=end-of-candidates", f"a=candidate:1 1 udp 2130706431 {own} {own_port} typ host\r\na=end-of-candidates")

    async def move(self) -> None:
        """From now on the server sees the client at another address, and what it sends to the old one is lost."""
        loop = asyncio.get_running_loop()
        for side in self._outside:
            side.close()
        outside, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_server), local_addr=(self._host, 0))
        self._outside.append(outside)

    def _from_client(self, data: bytes, sender: Address) -> None:
        self._client = sender
        if self._server is not None and self.open:
            self._outside[-1].sendto(data, self._server)

    def _from_server(self, data: bytes, _sender: Address) -> None:
        if self._client is not None and self.open:
            self._inside.sendto(data, self._client)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, pass_on: Callable[[bytes, Address], None]) -> None:
        self._pass_on = pass_on

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._pass_on(data, addr)
