"""ICE on our own ports: where aioice binds sockets of its own, waits 30 s for a vanished client and holds on to its old address.

aiortc and aioice have no public way to this. test_aiortc_guard.py fails when a name or a behaviour used here changes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aioice import Candidate, Connection, TransportPolicy, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol, server_reflexive_candidate
from aioice.turn import TurnTransport

from gpuserver.media.ports import LOOPBACK, Ports
from gpuserver.media.turn_relay import TURN_SECONDS, TurnRelay
from gpuserver.media.udp_socket import Address

COMPONENT = 1  # RTP and RTCP share it, and all sections share one transport
STUN_SECONDS = 3.0
CONSENT_SECONDS = (4.0, 6.0)  # between two checks, at random (RFC 7675, section 5.1)
CONSENT_RETRANSMISSIONS = 1  # a check counts as unanswered after 1.5 s
CONSENT_FAILURES = 6  # 30 s without consent end the connection, whatever else arrives (RFC 7675)
SILENCE_SECONDS = 8.0  # a client from which nothing at all arrives for so long has vanished; browsers report once a second
MOVED_SECONDS = 1.0  # silent for so long, the client may be where its newest check came from
RELEASE_SECONDS = 0.4  # for a TURN server to take back an address; one that is not given back expires there
MAX_PAIRS = 100  # RFC 8445, section 6.1.2.5
MAX_UNREAD = 1000  # datagrams that wait for DTLS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IceNetwork:
    """What all connections of this process share. public_addresses: announced besides our own ones. stun_server: host and port."""

    ports: Ports
    policy: TransportPolicy = TransportPolicy.ALL
    public_addresses: tuple[str, ...] = ()
    stun_server: tuple[str, int] | None = None
    relay: TurnRelay | None = None

    @property
    def gathering_seconds(self) -> float:
        """What silent servers cost a connection at most."""
        return max(STUN_SECONDS if self.stun_server else 0.0, TURN_SECONDS if self.relay else 0.0)

    def status(self) -> dict[str, object]:
        """For /health."""
        report: dict[str, object] = {"policy": self.policy.name.lower(), **self.ports.status()}
        if self.public_addresses:
            report["public_ip"] = list(self.public_addresses)
        if self.relay is not None:
            report["turn"] = self.relay.status()
        return report


class IceProtocol(StunProtocol):
    """Knows STUN from everything else by its first byte, and that its connection is alive by what arrives."""

    receiver: IceConnection

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        datagram = cast(bytes, data)
        self.receiver.hear((addr[0], addr[1]))
        if datagram and datagram[0] > 3:  # RFC 7983; aioice would first try to read it as STUN
            self.receiver.data_received(datagram, COMPONENT)
            return
        try:
            super().datagram_received(data, addr)
        except struct.error:  # an attribute that is too short
            return


class RelayedProtocol(IceProtocol):
    """The way through a TURN server."""

    async def close(self) -> None:
        """Give up the relayed address; aioice waits a minute for a server that has died, and the connection's end with it."""
        transport = cast(TurnTransport, self.transport)
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await transport._close()
        await transport._close()  # after a time-out the socket is closed: this ends what still waits to be sent


class IceConnection(Connection):
    """One connection's ICE."""

    def __init__(self, network: IceNetwork, username: str | None, password: str | None):
        super().__init__(ice_controlling=False, transport_policy=network.policy, local_username=username, local_password=password)
        self._network = network
        self._heard = 0.0  # when the client's address in use has last sent something, loop seconds
        self._following: asyncio.Task[None] | None = None

    async def get_component_candidates(self, component: int, addresses: Sequence[str], timeout: float = 5) -> list[Candidate]:
        """Our candidates. The public addresses come first; loopback is listened on and not announced. Raises NoFreePort."""
        hosts = self._open_ports(addresses) if self._network.policy is TransportPolicy.ALL else []
        asked: list[asyncio.Task[Candidate | None]] = []
        async with asyncio.TaskGroup() as group:
            if self._network.relay is not None:
                asked.append(group.create_task(self._relayed(self._network.relay)))
            if self._network.stun_server is not None:
                asked += [group.create_task(self._reflexive(host, self._network.stun_server)) for host in hosts]
        found = [task.result() for task in asked]
        return [*self._announced(hosts), *(candidate for candidate in found if candidate is not None)]

    def hear(self, address: Address) -> None:
        """Something has arrived from `address`."""
        pair = self._nominated.get(COMPONENT)
        if pair is not None and pair.remote_addr == address:
            self._heard = self._now()

    def data_received(self, data: bytes, component: int) -> None:
        if self._queue.qsize() < MAX_UNREAD:
            super().data_received(data, component)

    def check_complete(self, pair: CandidatePair) -> None:
        before = self._nominated.get(COMPONENT)
        super().check_complete(pair)
        if self._nominated.get(COMPONENT) is not before:
            self._heard = self._now()

    def request_received(self, message: stun.Message, addr: Address, protocol: StunProtocol) -> None:
        """A check without a priority is no check (RFC 8445, section 7.1.1); aioice would fail on it, perhaps only when it connects."""
        if "PRIORITY" in message.attributes:
            super().request_received(message, addr, protocol)
        else:
            self.respond_error(message, addr, protocol, (400, "Bad Request"))

    def check_incoming(self, message: stun.Message, addr: Address, protocol: StunProtocol) -> None:
        """A signed check of the client: answered like any, and followed if the address in use has fallen silent."""
        self._make_room()
        super().check_incoming(message, addr, protocol)
        used = self._nominated.get(COMPONENT)
        if used is None or used.remote_addr == addr or self._silence() < MOVED_SECONDS:
            return
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(used, addr, protocol), name="ice-move")

    async def add_remote_candidate(self, remote_candidate: Candidate | None) -> None:
        if remote_candidate is None or len(self._remote_candidates) < MAX_PAIRS:
            await super().add_remote_candidate(remote_candidate)

    async def query_consent(self) -> None:
        """Close the connection when its client has vanished or no longer consents to receive."""
        unanswered = 0
        while unanswered < CONSENT_FAILURES and self._silence() < SILENCE_SECONDS:
            if (used := self._nominated.get(COMPONENT)) is None:  # closed in the moment in which it has connected
                return
            await asyncio.sleep(min(random.uniform(*CONSENT_SECONDS), SILENCE_SECONDS - self._silence()))  # noqa: S311 - spreads load
            unanswered = 0 if await self._answers(self._nominated.get(COMPONENT, used)) else unanswered + 1
        log.info("peer_vanished", silent_seconds=round(self._silence(), 1), unanswered=unanswered)
        self._query_consent_task = None
        await self.close()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await super().close()

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        """Plan checks between our addresses and one that the client names; MAX_PAIRS in all."""
        for protocol in self._protocols:
            if len(self._check_list) >= MAX_PAIRS:
                return
            if may_send_to(protocol.local_candidate, remote_candidate) and not self._find_pair(protocol, remote_candidate):
                self._check_list.append(CandidatePair(protocol, remote_candidate))

    def take_over(self, other: IceConnection) -> None:
        """Whoever waits for a datagram of `other`, or for its end, waits for ours from now on."""
        while not self._queue.empty():
            other._queue.put_nowait(self._queue.get_nowait())
        self._queue, other._queue = other._queue, asyncio.Queue()
        self._event_waiter, other._event_waiter = other._event_waiter, None

    def _make_room(self) -> None:
        """However often a client moves, no more than MAX_PAIRS pairs are kept, the one in use among them."""
        used = self._nominated.get(COMPONENT)
        for pair in [each for each in reversed(self._check_list) if each is not used][: len(self._check_list) - MAX_PAIRS + 1]:
            if pair.task is not None:
                pair.task.cancel()
            self._check_list.remove(pair)
            if pair.remote_candidate in self._remote_candidates:
                self._remote_candidates.remove(pair.remote_candidate)

    def _open_ports(self, addresses: Sequence[str]) -> list[StunProtocol]:
        protocols: list[StunProtocol] = []
        for mux in self._network.ports.take(addresses):
            protocol = IceProtocol(self)
            mux.join(self.local_username, self.local_password, protocol)
            protocol.local_candidate = host_candidate(mux.address, mux.port)
            protocols.append(protocol)
        self._protocols += protocols
        return protocols

    def _announced(self, hosts: Iterable[StunProtocol]) -> list[Candidate]:
        own = [host.local_candidate for host in hosts]
        public = dict.fromkeys((address, host.port) for address in self._network.public_addresses for host in _behind(address, own))
        visible = [candidate for candidate in own if candidate.host not in LOOPBACK and (candidate.host, candidate.port) not in public]
        return [*(host_candidate(*each, preference=65_535) for each in public), *visible]

    async def _relayed(self, relay: TurnRelay) -> Candidate | None:
        made = await relay.candidate(lambda: RelayedProtocol(self), only_way=self._network.policy is TransportPolicy.RELAY)
        if made is None:
            return None
        candidate, protocol = made
        self._protocols.append(protocol)
        return candidate

    async def _reflexive(self, host: StunProtocol, server: tuple[str, int]) -> Candidate | None:
        if is_ipv6(host.local_candidate.host) or host.local_candidate.host in LOOPBACK:
            return None
        try:
            async with asyncio.timeout(STUN_SECONDS):
                candidate, _ = await server_reflexive_candidate(host, server)
        except (OSError, stun.TransactionError) as error:
            log.warning("stun_failed", server=f"{server[0]}:{server[1]}", error=repr(error))
            return None
        return candidate

    async def _follow(self, used: CandidatePair, address: Address, protocol: StunProtocol) -> None:
        """Send to `address` from now on if the client no longer answers where it was, and does there."""
        if await self._answers(used) or self._nominated.get(COMPONENT) is not used:
            return
        for pair in self._check_list:
            if pair.protocol is protocol and pair.remote_addr == address and pair.state is CandidatePair.State.SUCCEEDED:
                log.info("peer_moved")
                pair.nominated = True
                self.check_complete(pair)
                return

    async def _answers(self, pair: CandidatePair) -> bool:
        request = self.build_request(pair, nominate=False)
        key = (self.remote_password or "").encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=CONSENT_RETRANSMISSIONS)
        except stun.TransactionError:
            return False
        return True

    def _silence(self) -> float:
        return self._now() - self._heard

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def may_send_to(ours: Candidate, named: Candidate) -> bool:
    """Whether a client may make us send to the address that it names, before anything has come from there.

    From this machine's own addresses not to its loopback, its link or what routes nowhere: no browser needs it, since one that is there
    shows itself by its own checks. To whom a relay may send is for the TURN server to say.
    """
    if not ours.can_pair_with(named):
        return False
    address = ipaddress.ip_address(named.host)
    is_mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    is_local = address.is_loopback or address.is_link_local or address.is_reserved or is_mapped
    return ours.type == "relay" or not (is_local or ours.host in LOOPBACK)


def host_candidate(address: str, port: int, *, preference: int = 65_534) -> Candidate:
    """preference: among host candidates, the highest first."""
    return Candidate(
        foundation=candidate_foundation("host", "udp", address),
        component=COMPONENT,
        transport="udp",
        priority=candidate_priority(COMPONENT, "host", preference),
        host=address,
        port=port,
        type="host",
    )


def _behind(public: str, own: Sequence[Candidate]) -> Sequence[Candidate]:
    """Which of our addresses a public one leads to: those of its kind, or all, for Docker maps IPv6 to a container without it."""
    return [candidate for candidate in own if is_ipv6(candidate.host) == is_ipv6(public)] or own


def is_ipv6(address: str) -> bool:
    return ipaddress.ip_address(address).version == 6
