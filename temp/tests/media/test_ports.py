"""Real connections on one port, on a range and on any port; clients that move and clients that vanish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aioice import Candidate
from aioice.ice import get_host_addresses
from conftest import MakeSettings
from network_path import LAN, NetworkPath, free_port
from receiver import Receiver
from structlog.testing import capture_logs
from watched_session import NothingLeft, WatchedSession, negotiation

from gpuserver.errors import CannotStart, NoFreePort
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peers import Peers
from gpuserver.media.ports import AnyPort, PortRange, Ports, SharedPort, make_ports, udp_port_for


@contextlib.asynccontextmanager
async def peers_on(ports: Ports, *public: str) -> AsyncIterator[Peers]:
    """Peers of their own, of which nothing is left afterwards, no open file either."""
    async with NothingLeft():
        encoding = Encoding(1)
        before = len(list(Path("/proc/self/fd").iterdir()))
        async with Peers(IceNetwork(ports, public_addresses=public), LoopClock(), encoding) as peers:
            yield peers
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        await encoding.aclose()


def announced(answer: str) -> set[tuple[str, int]]:
    return {(host, int(port)) for host, port in re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", answer)}


async def test_ten_sessions_share_one_port() -> None:
    port = free_port()
    async with peers_on(SharedPort(port)) as peers, contextlib.AsyncExitStack() as clients:
        receivers = []
        for number in range(10):
            receiver = await clients.enter_async_context(Receiver(keep_pictures=2))
            negotiate = negotiation(peers, WatchedSession(f"s{number}"))
            await receiver.connect(negotiate)
            receivers.append(receiver)
        for receiver in receivers:
            await watches(receiver)
            assert {remote.port for remote in remotes(receiver)} == {port}
        assert len(peers) == 10
        for receiver in receivers:
            await receiver.aclose()


async def watches(receiver: Receiver) -> None:
    await receiver.until(lambda: bool(receiver.pictures) and bool(receiver.sounds))


def remotes(receiver: Receiver) -> list[Candidate]:
    """Where a client sends to."""
    transport = receiver.connection.getTransceivers()[0].receiver.transport.transport
    return [pair.remote_candidate for pair in transport._connection._nominated.values()]


async def test_both_internet_protocols_lead_to_the_port() -> None:
    port = free_port()
    async with peers_on(SharedPort(port)) as peers, Receiver() as receiver:
        answer = await negotiation(peers, WatchedSession())(await receiver.offer())
        assert {address for address, _ in announced(answer)} == set(get_host_addresses(use_ipv4=True, use_ipv6=True))
        assert {used for _, used in announced(answer)} == {port}


async def test_the_public_address_is_announced_first_and_with_the_port() -> None:
    port = free_port()
    async with peers_on(SharedPort(port), "203.0.113.7") as peers, Receiver() as receiver:
        answer = await negotiation(peers, WatchedSession())(await receiver.offer())
        priorities = {host: int(priority) for priority, host in re.findall(r"udp (\d+) (\S+) \d+ typ host", answer)}
        assert ("203.0.113.7", port) in announced(answer)
        assert max(priorities, key=priorities.__getitem__) == "203.0.113.7"


async def test_a_public_address_of_a_kind_that_the_machine_lacks_is_announced_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_kinds: [LAN])  # a container, whose engine maps IPv6 to it
    monkeypatch.setattr("gpuserver.media.ports.LOOPBACK", ("127.0.0.1",))
    monkeypatch.setattr("gpuserver.media.ports.get_host_addresses", lambda **_kinds: [LAN])
    port = free_port()
    async with peers_on(SharedPort(port), "2001:db8::7") as peers, Receiver() as receiver:
        answer = await negotiation(peers, WatchedSession())(await receiver.offer())
        assert announced(answer) == {("2001:db8::7", port), (LAN, port)}


async def test_what_a_tunnel_delivers_on_loopback_is_a_client() -> None:
    port = free_port()
    async with peers_on(SharedPort(port), "127.0.0.1") as peers, NetworkPath("127.0.0.1") as tunnel, Receiver() as receiver:

        async def negotiate(offer: str) -> str:
            return tunnel.through(await negotiation(peers, WatchedSession(), tunnel.behind)(offer))

        await receiver.connect(negotiate)
        await receiver.until(lambda: len(receiver.pictures) > 2)


async def test_a_client_whose_address_changes_goes_on_seeing_and_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.5)  # the client's
    monkeypatch.setattr("gpuserver.media.ice_connection.MOVED_SECONDS", 0.2)
    session = WatchedSession()
    async with peers_on(SharedPort(free_port())) as peers, NetworkPath(LAN) as path, Receiver() as receiver:

        async def negotiate(offer: str) -> str:
            return path.through(await negotiation(peers, session, path.behind)(offer))

        await receiver.connect(negotiate)
        await receiver.until(lambda: len(receiver.pictures) > 2)
        await path.move()
        pictures, sounds = len(receiver.pictures), len(receiver.sounds)
        await receiver.until(lambda: len(receiver.pictures) > pictures + 30 and len(receiver.sounds) > sounds + 60)
        assert session.notes == ["attach"], "the connection was lost on the way"


async def test_a_client_that_has_vanished_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.media.ice_connection.SILENCE_SECONDS", 0.5)
    session = WatchedSession()
    async with peers_on(SharedPort(free_port())) as peers, NetworkPath(LAN) as path, Receiver() as receiver:

        async def negotiate(offer: str) -> str:
            return path.through(await negotiation(peers, session, path.behind)(offer))

        await receiver.connect(negotiate)
        path.open = False
        async with asyncio.timeout(10):
            await session.detached.wait()
        assert len(peers) == 0


async def test_each_session_has_a_port_of_the_range_until_there_is_none_left() -> None:
    first = free_port()
    async with peers_on(PortRange(first, first + 1)) as peers, Receiver() as one, Receiver() as two, Receiver() as three:
        used = []
        for number, receiver in enumerate((one, two)):
            answer = await negotiation(peers, WatchedSession(f"s{number}"))(await receiver.offer())
            used.append({port for _, port in announced(answer)})
        assert used == [{first}, {first + 1}]
        with pytest.raises(NoFreePort, match=f"All 2 ports from {first} to {first + 1} are in use") as refusal:
            await negotiation(peers, WatchedSession("s2"))(await three.offer())
        assert refusal.value.status == 503


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
async def test_a_port_of_the_range_that_is_not_in_use_and_cannot_be_had_is_said_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_arguments: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("gpuserver.media.ports.UdpMux", refused)
    with pytest.raises(NoFreePort, match=os.strerror(number)):
        PortRange(80, 90).take([LAN])


async def test_a_port_of_the_range_that_something_else_uses_is_left_out() -> None:
    first = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LAN, first))
        async with peers_on(PortRange(first, first + 1)) as peers, Receiver() as receiver:
            await receiver.connect(negotiation(peers, WatchedSession()))
            assert {remote.port for remote in remotes(receiver)} == {first + 1}


async def test_a_port_in_use_is_said_at_start() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LAN, port))
        ports = SharedPort(port)
        with pytest.raises(CannotStart, match=f"UDP port {port} on {LAN} is in use"):
            ports.start()
    ports.start()
    ports.close()


async def test_an_address_that_the_machine_gets_later_has_the_port_too() -> None:
    ports = SharedPort(free_port())
    ports.start()
    loopback = addresses_of(ports, [])
    assert "127.0.0.1" in loopback
    assert addresses_of(ports, [LAN]) == {LAN, *loopback}
    assert addresses_of(ports, ["127.0.0.9"]) == {"127.0.0.9", *loopback}
    with capture_logs() as logs:
        assert addresses_of(ports, ["203.0.113.99"]) == loopback
    assert [line["event"] for line in logs] == ["address_without_port"]
    ports.close()


def addresses_of(ports: Ports, wanted: list[str]) -> set[str]:
    return {mux.address for mux in ports.take(wanted)}


def test_which_ports_the_settings_name(make_settings: MakeSettings) -> None:
    assert isinstance(make_ports(make_settings()), AnyPort)
    assert make_ports(make_settings(webrtc_port_min=8200, webrtc_port_max=8205)).status() == {
        "port_min": 8200,
        "port_max": 8205,
        "unknown": 0,
        "forged": 0,
    }
    settings = make_settings(webrtc_udp_port=8200, webrtc_port_min=9000, webrtc_port_max=9001)
    assert make_ports(settings).status()["udp_port"] == 8200
    assert make_ports(settings, worker=2).status()["udp_port"] == udp_port_for(8200, 2) == 8202


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"webrtc_port_min": 9000, "webrtc_port_max": 8000}, "must not be greater"),
        ({"webrtc_port_min": 9000}, "belong together"),
        ({"webrtc_public_ip": "example.org"}, "must be an IP address"),
        ({"webrtc_public_ip": "203.0.113.7, 2001:db8::300::1"}, "must be an IP address"),
        ({"webrtc_public_ip": "0.0.0.0"}, "browsers can send to, not 0.0.0.0"),
        ({"webrtc_public_ip": "203.0.113.7,fe80::1"}, "browsers can send to, not fe80::1"),
        ({"webrtc_udp_port": 65535, "media_workers": 2}, "too high for MEDIA_WORKERS"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_settings: MakeSettings, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_settings(**given)


def test_several_public_addresses_are_separated_by_commas(make_settings: MakeSettings) -> None:
    settings = make_settings(webrtc_public_ip="203.0.113.7, 2001:DB8:0::7, ::ffff:203.0.113.8,")
    assert settings.webrtc_public_ip == ("203.0.113.7", "2001:db8::7", "203.0.113.8")
