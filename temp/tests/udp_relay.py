"""A bad network between two WebRTC ends on this machine: loses, delays, shuffles or cuts; the same way for the same seed."""

from __future__ import annotations

import asyncio
import math
import random
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from aioice.ice import get_host_addresses

CANDIDATE = re.compile(r"a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host.*\r\n", re.IGNORECASE)
ANY_CANDIDATE = re.compile(r"a=(candidate:.*|end-of-candidates)\r\n")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Network:
    """What happens to each datagram, either way. loss: 0..1. delay, jitter: seconds; jitter to either side, so that datagrams overtake.

    rate: bit/s towards the client. buffer: bytes that wait for that; what comes besides is lost.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    buffer: int = 64_000


class UdpRelay:
    """Stands between a client and the server whose answer was redirected. cut: nothing passes. carried: datagrams that did."""

    def __init__(self, network: Network, seed: int = 1):
        self.network = network
        self.cut = False
        self.carried = 0
        self._free_at = 0.0  # when the link to the client has sent what it has taken
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._host = get_host_addresses(use_ipv4=True, use_ipv6=False)[0]
        self._server: Address | None = None
        self._client: Address | None = None
        self._to_client = _Side(self._from_client)
        self._to_server = _Side(self._from_server)

    async def __aenter__(self) -> UdpRelay:
        for side in (self._to_client, self._to_server):
            await self._loop.create_datagram_endpoint(lambda side=side: side, local_addr=(self._host, 0))  # type: ignore[misc]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for side in (self._to_client, self._to_server):
            side.transport.close()
            await side.closed.wait()

    def redirect(self, answer: str) -> str:
        """The server's SDP answer with this relay in the place of the server."""
        found = CANDIDATE.search(answer)
        assert found is not None, answer
        self._server = found[1], int(found[2])
        host, port = self._to_client.transport.get_extra_info("sockname")
        ours = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host\r\na=end-of-candidates\r\n"
        sections = ANY_CANDIDATE.sub("", answer).split("m=")
        return "m=".join([sections[0], *(section + ours for section in sections[1:])])

    def _from_client(self, data: bytes, client: Address) -> None:
        self._client = client
        self._carry(self._to_server, data, self._server)

    def _from_server(self, data: bytes, _server: Address) -> None:
        now = self._loop.time()
        self._free_at = max(now, self._free_at)
        if self._free_at > now and (self._free_at - now) * self.network.rate / 8 + len(data) > self.network.buffer:
            return
        self._free_at += len(data) * 8 / self.network.rate
        self._carry(self._to_client, data, self._client, self._free_at - now)

    def _carry(self, side: _Side, data: bytes, target: Address | None, queued: float = 0.0) -> None:
        lost, late = self._random.random() < self.network.loss, self._random.uniform(-1, 1) * self.network.jitter
        if target is not None and not self.cut and not lost:
            self._loop.call_later(max(0.0, queued + self.network.delay + late), self._deliver, side, data, target)

    def _deliver(self, side: _Side, data: bytes, target: Address) -> None:
        if not self.cut and not side.transport.is_closing():
            self.carried += 1
            side.transport.sendto(data, target)


class _Side(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self, receive: Any):
        self._receive = receive
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._receive(data, addr)
