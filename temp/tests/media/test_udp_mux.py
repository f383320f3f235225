"""Many connections on one socket: who gets which datagram, and what strangers can do."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aioice import stun

from gpuserver.media.udp_mux import (
    ADDRESS_SECONDS,
    MAX_ADDRESSES,
    MAX_ATTRIBUTES,
    MAX_QUESTIONS,
    USERNAME,
    MuxCounts,
    UdpMux,
    username_fragment,
)
from gpuserver.media.udp_socket import Address

PASSWORD = "p" * 22


class Inbox(asyncio.DatagramProtocol):
    """What arrived for one connection."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.append((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Client:
    """A socket somewhere else. tell() returns when the mux has read what was sent."""

    def __init__(self, mux: UdpMux) -> None:
        self._mux = mux
        self._socket = socket.socket(socket.AF_INET6 if ":" in mux.address else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((mux.address, 0))
        self._socket.setblocking(False)

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def tell(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self._socket.sendto(datagram, (self._mux.address, self._mux.port))
        self._mux._socket._read()

    async def hear(self) -> bytes:
        async with asyncio.timeout(2):
            return await asyncio.get_running_loop().sock_recv(self._socket, 2000)

    def close(self) -> None:
        self._socket.close()


def check(username: str, password: str = PASSWORD) -> bytes:
    """A signed binding request."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{username}:theirs"
    request.attributes["PRIORITY"] = 1
    request.add_message_integrity(password.encode())
    return bytes(request)


@pytest.fixture(params=["127.0.0.1", "::1"])
async def mux(request: pytest.FixtureRequest) -> AsyncIterator[UdpMux]:
    if request.param == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    made = UdpMux(request.param, 0, MuxCounts())
    yield made
    made.close()


@pytest.fixture
def client(mux: UdpMux) -> Iterator[Client]:
    made = Client(mux)
    yield made
    made.close()


async def test_each_connection_gets_what_its_own_client_sends(mux: UdpMux, client: Client) -> None:
    other, ours, theirs = Client(mux), Inbox(), Inbox()
    mux.join("ours", PASSWORD, ours)
    mux.join("theirs", PASSWORD, theirs)
    first, second = check("ours"), check("theirs")
    await client.tell(first, b"\x80 sound")
    await other.tell(second, b"\x16 handshake")
    assert ours.heard == [(first, client.address), (b"\x80 sound", client.address)]
    assert theirs.heard == [(second, other.address), (b"\x16 handshake", other.address)]
    other.close()


async def test_a_client_that_comes_from_another_address_is_the_same_client(mux: UdpMux, client: Client) -> None:
    inbox, moved = Inbox(), Client(mux)
    mux.join("ours", PASSWORD, inbox)
    await client.tell(check("ours"))
    await moved.tell(check("ours"), b"\x80 from there")
    assert inbox.heard[-1] == (b"\x80 from there", moved.address)
    moved.close()


async def test_an_address_goes_to_the_connection_that_it_has_signed_for_last(mux: UdpMux, client: Client) -> None:
    before, after = Inbox(), Inbox()
    old = mux.join("before", PASSWORD, before)
    mux.join("after", PASSWORD, after)
    await client.tell(check("before"), check("after"), b"\x80 picture")
    assert after.heard[-1] == (b"\x80 picture", client.address)
    old.close()
    await client.tell(b"\x80 and on")
    assert after.heard[-1] == (b"\x80 and on", client.address)


@pytest.mark.parametrize(
    "forged",
    [
        check("ours", "another password, guessed"),
        check("ours")[:-32] + bytes(32),
        struct.pack("!HHI12s", 1, 8, 0x2112A442, bytes(12)) + struct.pack("!HH", 6, 4) + b"ours",
        struct.pack("!HHI12s", 1, 16, 0x2112A442, bytes(12)) + struct.pack("!HH", 6, 4) + b"ours" + struct.pack("!HHHH", 0x24, 2, 1, 0),
    ],
    ids=["wrong password", "damaged", "not signed", "an attribute too short"],
)
async def test_what_the_client_has_not_signed_moves_nothing(mux: UdpMux, client: Client, forged: bytes) -> None:
    inbox, stranger = Inbox(), Client(mux)
    mux.join("ours", PASSWORD, inbox)
    await client.tell(check("ours"))
    await stranger.tell(forged, b"\x80 noise")
    await client.tell(b"\x80 still here")
    assert [data for data, _ in inbox.heard[1:]] == [b"\x80 still here"]
    assert mux._counts == MuxCounts(unknown=1, forged=1)
    stranger.close()


async def test_a_flood_of_unknown_names_is_counted_and_leaves_nothing(mux: UdpMux, client: Client) -> None:
    chance = random.Random(6)
    inbox = Inbox()
    mux.join("ours", PASSWORD, inbox)
    flood = 0
    for _ in range(40):
        batch = [check(f"u{chance.randrange(10**9)}") for _ in range(10)] + [os.urandom(40) for _ in range(10)] + [b"", b"\x00\x01"]
        await client.tell(*batch)
        flood += len(batch)
    assert mux._counts.unknown == flood
    assert (len(mux._legs), mux._by_address, mux._by_question, inbox.heard) == (1, {}, {}, [])
    with pytest.raises(TimeoutError):  # nobody is answered, so that nobody else can be flooded through us
        async with asyncio.timeout(0.05):
            await client.hear()


async def test_a_request_that_no_client_sends_is_not_looked_through(mux: UdpMux, client: Client) -> None:
    inbox = Inbox()
    mux.join("ours", PASSWORD, inbox)
    empty, name = struct.pack("!HH", 0x8022, 0), struct.pack("!HH", USERNAME, 4) + b"ours"
    header = struct.pack("!HHI12s", 1, 0, 0x2112A442, bytes(12))
    await client.tell(header + name + empty * 4000, header + empty * MAX_ATTRIBUTES + name)
    assert mux._counts == MuxCounts(unknown=2)
    await client.tell(header + empty * (MAX_ATTRIBUTES - 1) + name)
    assert mux._counts == MuxCounts(unknown=2, forged=1)


async def test_an_answer_finds_the_connection_that_has_asked_for_it(mux: UdpMux, client: Client) -> None:
    inbox, other = Inbox(), Inbox()
    mux.join("other", PASSWORD, other)
    leg = mux.join("ours", PASSWORD, inbox)
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    leg.sendto(bytes(request), client.address)
    assert await client.hear() == bytes(request)
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
    stranger = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE)
    await client.tell(bytes(answer), bytes(stranger))
    assert [data for data, _ in inbox.heard] == [bytes(answer)]
    assert other.heard == []
    assert mux._by_address == {}, "an answer ties no address to a connection"


async def test_a_connection_has_so_many_addresses_and_open_questions_and_no_more(mux: UdpMux) -> None:
    leg = mux.join("ours", PASSWORD, Inbox())
    clients = [Client(mux) for _ in range(MAX_ADDRESSES + 3)]
    for each in clients:
        await each.tell(check("ours"))
    assert list(mux._by_address) == [each.address for each in clients[3:]]
    for _ in range(MAX_QUESTIONS + 5):
        leg.sendto(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)), clients[0].address)
    assert len(mux._by_question) == len(leg.questions) == MAX_QUESTIONS
    for each in clients:
        each.close()


async def test_an_address_that_signs_nothing_any_more_is_forgotten(mux: UdpMux, client: Client) -> None:
    moved = Client(mux)
    leg = mux.join("ours", PASSWORD, Inbox())
    await client.tell(check("ours"))
    leg.addresses[client.address] -= ADDRESS_SECONDS + 1
    await moved.tell(check("ours"))
    assert list(mux._by_address) == [moved.address] == list(leg.addresses)
    moved.close()


async def test_closing_a_connection_leaves_nothing_of_it(mux: UdpMux, client: Client) -> None:
    inbox = Inbox()
    leg = mux.join("ours", PASSWORD, inbox)
    await client.tell(check("ours"))
    leg.sendto(check("theirs"), client.address)
    leg.close()
    leg.close()
    leg.sendto(b"\x80 too late", client.address)
    await inbox.lost.wait()
    await client.tell(check("ours"), b"\x80")
    assert leg.is_closing()
    assert (mux._legs, mux._by_address, mux._by_question, len(inbox.heard)) == ({}, {}, {}, 1)


async def test_a_name_is_given_once(mux: UdpMux) -> None:
    mux.join("ours", PASSWORD, Inbox())
    with pytest.raises(ValueError, match="joined before"):
        mux.join("ours", PASSWORD, Inbox())


async def test_what_cannot_be_sent_is_lost_and_counted(mux: UdpMux) -> None:
    leg = mux.join("ours", PASSWORD, Inbox())
    leg.sendto(bytes(70_000), (mux.address, 9))
    assert mux._socket.unsent == 1


@pytest.mark.parametrize(
    ("request_bytes", "name"),
    [
        (check("abcd"), "abcd"),
        (b"", ""),
        (bytes(24), ""),
        (bytes(20) + struct.pack("!HH", 6, 999) + b"ab", "ab"),
        (bytes(20) + b"\x00\x06\x00\x02\xff:", "\ufffd"),
    ],
    ids=["a request", "nothing", "zeros", "a name that is cut off", "no UTF-8"],
)
def test_whom_a_request_is_for(request_bytes: bytes, name: str) -> None:
    assert username_fragment(request_bytes) == name
