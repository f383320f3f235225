"""One connection's ICE: what a client may make it do, and how it notices that the client is gone."""

from __future__ import annotations

import asyncio

import aioice
import pytest
from aioice import stun
from aioice.ice import CandidatePair, get_host_addresses
from network_path import LAN, free_port
from virtual_time import in_virtual_time

from gpuserver.media.ice_connection import COMPONENT, MAX_PAIRS, IceConnection, IceNetwork, IceProtocol, host_candidate
from gpuserver.media.ports import AnyPort, SharedPort


class Unanswering(IceProtocol):
    """A way to a client that is gone: every request takes its time and fails."""

    async def request(
        self, request: stun.Message, addr: tuple[str, int], integrity_key: bytes | None = None, retransmissions: int | None = None
    ) -> tuple[stun.Message, tuple[str, int]]:
        await asyncio.sleep(0.5 * (2 ** ((retransmissions or 0) + 1) - 1))
        raise stun.TransactionTimeout

    async def close(self) -> None:
        """Nothing is open."""


@in_virtual_time
async def test_a_vanished_client_costs_10_s_at_most() -> None:
    for _ in range(50):  # the moments of the checks are random
        connection = IceConnection(IceNetwork(AnyPort()), None, None)
        connection.remote_username, connection.remote_password = "them", "p" * 22
        protocol = Unanswering(connection)
        protocol.local_candidate = host_candidate("192.0.2.1", 1)
        pair = CandidatePair(protocol, host_candidate("192.0.2.9", 9))
        pair.remote_candidate._network_host = "192.0.2.9"
        connection._nominated[COMPONENT] = pair
        connection.hear(("192.0.2.9", 9))
        began = asyncio.get_running_loop().time()
        await connection.query_consent()
        assert 8.0 <= asyncio.get_running_loop().time() - began <= 10.0


@in_virtual_time
async def test_a_connection_that_is_closed_as_it_connects_is_not_watched() -> None:
    connection = IceConnection(IceNetwork(AnyPort()), None, None)
    connection.hear(("192.0.2.9", 9))
    await connection.close()
    connection._heard = asyncio.get_running_loop().time()
    await connection.query_consent()


async def test_a_client_that_moves_without_end_takes_no_more_room() -> None:
    connection = IceConnection(IceNetwork(AnyPort()), None, None)
    connection.remote_username, connection.remote_password = "them", "p" * 22
    await connection.gather_candidates()
    protocol = connection._protocols[0]
    check = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"PRIORITY": 1})
    for port in range(1, 4 * MAX_PAIRS):
        connection.check_incoming(check, (LAN, port), protocol)
        await connection.add_remote_candidate(host_candidate(LAN, 10_000 + port))
    assert len(connection._check_list) <= 2 * MAX_PAIRS
    assert len(connection._remote_candidates) <= 2 * MAX_PAIRS
    assert (LAN, 4 * MAX_PAIRS - 1) in {pair.remote_addr for pair in connection._check_list}
    await connection.close()


HOSTILE = ("127.0.0.1", "169.254.169.254", "255.255.255.255", "240.0.0.1", "::1", "fe80::1", "fe80::1%lo", "::ffff:127.0.0.1", "::7f00:1")


@pytest.mark.parametrize("address", HOSTILE)
async def test_no_client_makes_us_send_to_this_machine_or_its_link(address: str) -> None:
    ports = SharedPort(free_port())
    ports.start()
    connection = IceConnection(IceNetwork(ports), None, None)
    await connection.gather_candidates()
    await connection.add_remote_candidate(host_candidate(address, 25))
    assert connection._check_list == []
    await connection.add_remote_candidate(host_candidate("192.0.2.1", 25))
    assert {pair.local_candidate.host for pair in connection._check_list} == set(get_host_addresses(use_ipv4=True, use_ipv6=False))
    await connection.close()
    ports.close()


async def test_a_client_that_names_a_thousand_addresses_costs_a_hundred_checks() -> None:
    connection = IceConnection(IceNetwork(AnyPort()), None, None)
    await connection.gather_candidates()
    for port in range(1, 1001):
        await connection.add_remote_candidate(host_candidate("192.0.2.1", port))
    assert (len(connection._check_list), len(connection._remote_candidates)) == (MAX_PAIRS, MAX_PAIRS)
    await connection.close()


async def test_a_signed_check_without_a_priority_is_answered_and_changes_nothing() -> None:
    connection, stranger = IceConnection(IceNetwork(AnyPort()), None, None), aioice.Connection(ice_controlling=True)
    await asyncio.gather(connection.gather_candidates(), stranger.gather_candidates())
    asking = next(each for each in stranger._protocols if each.local_candidate.host == LAN)
    ours = next(each for each in connection.local_candidates if each.host == LAN)
    connection.remote_username, connection.remote_password = stranger.local_username, stranger.local_password
    check = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    check.attributes["USERNAME"] = f"{connection.local_username}:{stranger.local_username}"
    check.add_message_integrity(connection.local_password.encode())
    with pytest.raises(stun.TransactionFailed, match="400"):
        await asking.request(check, (ours.host, ours.port))
    assert (list(connection._early_checks), connection._remote_candidates) == ([], [])
    await asyncio.gather(connection.close(), stranger.close())
