"""Many ICE connections on one UDP socket: a datagram finds its connection by its sender's address, an address by a signed STUN request.

Only a binding request with a connection's username fragment and a valid MESSAGE-INTEGRITY (RFC 8489, section 9.1) ties an address to that
connection, also one that was tied to another before: so a client may move, and nobody can move it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from aioice import stun

from gpuserver.media.udp_socket import Address, UdpSocket

BINDING_REQUEST, STUN_RESPONSE = b"\x00\x01", b"\x01"  # first bytes; DTLS begins with 20 to 63, RTP with 128 to 191 (RFC 7983)
USERNAME = 0x0006
MAX_REQUEST_BYTES = 1500  # of an Ethernet frame; STUN is not fragmented (RFC 8489, section 6.1)
MAX_ATTRIBUTES = 16  # that are looked through for a USERNAME, which browsers put first
MAX_ADDRESSES = 8  # per connection
ADDRESS_SECONDS = 60.0  # an address that has signed nothing for so long is forgotten; living clients sign every 5 s
MAX_QUESTIONS = 256  # requests per connection whose answers are recognised

PARSE_ERRORS = (ValueError, struct.error)


@dataclass(slots=True)
class MuxCounts:
    """Datagrams that reached no connection. unknown: of nobody. forged: requests in a client's name that it has not signed."""

    unknown: int = 0
    forged: int = 0

    def add(self, other: MuxCounts) -> None:
        self.unknown += other.unknown
        self.forged += other.forged

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class UdpMux:
    """The connections on one address and port. With `exclusive` the socket closes with its last connection.

    Raises OSError where the port cannot be bound.
    """

    def __init__(self, address: str, port: int, counts: MuxCounts, *, exclusive: bool = False):
        self._socket = UdpSocket(address, port, self._receive)
        self._counts = counts
        self._exclusive = exclusive
        self._legs: dict[str, Leg] = {}  # by username fragment
        self._by_address: dict[Address, Leg] = {}
        self._by_question: dict[bytes, Leg] = {}  # by STUN transaction

    @property
    def address(self) -> str:
        return self._socket.address

    @property
    def port(self) -> int:
        return self._socket.port

    def __len__(self) -> int:
        """How many connections use it."""
        return len(self._legs)

    def join(self, username: str, password: str, protocol: asyncio.DatagramProtocol) -> Leg:
        """A transport for `protocol`, which belongs to the ICE connection with this local username fragment and password."""
        if username in self._legs:
            raise ValueError("A connection with this username fragment has joined before.")
        leg = self._legs[username] = Leg(self, username, password, protocol)
        protocol.connection_made(leg)
        return leg

    def close(self) -> None:
        for leg in list(self._legs.values()):
            leg.close()
        self._socket.close()

    def _receive(self, data: bytes, sender: Address) -> None:
        if data[:2] == BINDING_REQUEST:
            leg = self._legs.get(username_fragment(data)) if len(data) <= MAX_REQUEST_BYTES else None
            if leg is not None and not is_signed(data, leg.key):
                self._counts.forged += 1
                return
        else:
            leg = self._by_address.get(sender) or self._answered(data)
        if leg is None:
            self._counts.unknown += 1
            return
        if data[:2] == BINDING_REQUEST:
            self._tie(sender, leg)
        leg.protocol.datagram_received(data, sender)

    def _answered(self, response: bytes) -> Leg | None:
        """The connection that has asked for what comes from an address that has signed nothing yet, such as a STUN server."""
        return self._by_question.get(response[8:20]) if response[:1] == STUN_RESPONSE else None

    def _tie(self, address: Address, leg: Leg) -> None:
        before = self._by_address.get(address)
        if before is not None and before is not leg:
            del before.addresses[address]
        self._by_address[address] = leg
        for stale in leg.note(address):
            del self._by_address[stale]

    def _ask(self, leg: Leg, question: bytes, address: Address) -> None:
        transaction = question[8:20]
        if transaction not in self._by_question:
            if len(leg.questions) == MAX_QUESTIONS:
                self._by_question.pop(leg.questions.popleft(), None)
            leg.questions.append(transaction)
            self._by_question[transaction] = leg
        self._socket.send(question, address)

    def _leave(self, leg: Leg) -> None:
        del self._legs[leg.username]
        for address in leg.addresses:
            del self._by_address[address]
        for question in leg.questions:
            self._by_question.pop(question, None)
        if self._exclusive and not self._legs:
            self._socket.close()


class Leg(asyncio.DatagramTransport):
    """One connection's share of a UdpMux: what a StunProtocol takes for a socket of its own."""

    def __init__(self, mux: UdpMux, username: str, password: str, protocol: asyncio.DatagramProtocol):
        super().__init__()
        self._mux = mux
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.username = username
        self.key = password.encode()
        self.protocol = protocol
        self.addresses: dict[Address, float] = {}  # when each has last signed, loop seconds; the newest last
        self.questions: deque[bytes] = deque()

    def note(self, address: Address) -> list[Address]:
        """`address` has signed a request now. Returns those that are to be forgotten."""
        now = self._loop.time()
        self.addresses.pop(address, None)
        self.addresses[address] = now
        room = len(self.addresses) - MAX_ADDRESSES
        stale = [each for at, (each, signed) in enumerate(self.addresses.items()) if at < room or now - signed > ADDRESS_SECONDS]
        for each in stale:
            del self.addresses[each]
        return stale

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self._closing:
            return
        if data[:2] == BINDING_REQUEST:
            self._mux._ask(self, data, addr)
        else:
            self._mux._socket.send(data, addr)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._mux._leave(self)
            self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


def is_signed(request: bytes, key: bytes) -> bool:
    """Whether a STUN request carries a MESSAGE-INTEGRITY made with `key`."""
    try:
        return stun.parse_message(request).check_message_integrity(key)
    except PARSE_ERRORS:
        return False


def username_fragment(request: bytes) -> str:
    """Whom a STUN request is for: what stands before the colon of its USERNAME; empty where there is none."""
    at = 20
    for _ in range(MAX_ATTRIBUTES):
        if at + 4 > len(request):
            break
        kind, size = struct.unpack_from("!HH", request, at)
        if kind == USERNAME:
            return request[at + 4 : at + 4 + size].partition(b":")[0].decode("ascii", "replace")
        at += 4 + size + -size % 4
    return ""
