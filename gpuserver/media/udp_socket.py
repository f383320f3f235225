"""One bound UDP socket that is read in batches and never waits: what cannot be sent at once is lost, as on any network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

Address = tuple[str, int]

BUFFER_BYTES = 4 << 20  # asked for; the kernel grants up to net.core.rmem_max
BATCH = 64  # datagrams per turn of the event loop, so that a flood leaves time for everything else
LARGEST_DATAGRAM = 65_535


class UdpSocket:
    """`receive` is called with every datagram and its sender. Raises OSError where `address` and `port` cannot be bound."""

    def __init__(self, address: str, port: int, receive: Callable[[bytes, Address], None]):
        is_ipv6 = ":" in address
        self._receive = receive
        self._socket = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
            if is_ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((address, port))
        except OSError:
            self._socket.close()
            raise
        self.address: str = address
        self.port: int = self._socket.getsockname()[1]
        self.unsent = 0  # datagrams that the kernel did not take
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def send(self, data: bytes, address: Address) -> None:
        try:
            self._socket.sendto(data, address)
        except OSError:  # a full buffer, or no way from this address to that one
            self.unsent += 1

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                data, sender = self._socket.recvfrom(LARGEST_DATAGRAM)
            except OSError:  # nothing more there
                return
            self._receive(data, sender[:2])
            if self._socket.fileno() < 0:  # closed by what it said
                return
