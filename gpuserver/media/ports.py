"""Where WebRTC's datagrams come in: one UDP port for all sessions, one of a range for each, or any free port."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Protocol

import structlog
from aioice.ice import get_host_addresses

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, NoFreePort
from gpuserver.media.udp_mux import MuxCounts, UdpMux

LOOPBACK = ("127.0.0.1", "::1")  # where a tunnel's end on this machine delivers; never announced

log = structlog.get_logger(__name__)


class Ports(Protocol):
    def start(self) -> None:
        """Bind what stays bound. Raises CannotStart."""
        ...

    def take(self, addresses: Sequence[str]) -> list[UdpMux]:
        """For one connection: a socket on each of this machine's addresses that it is to be reachable at. Raises NoFreePort."""
        ...

    def status(self) -> dict[str, object]:
        """For /health."""
        ...

    def close(self) -> None: ...


def make_ports(settings: Settings, worker: int = 0) -> Ports:
    """What WEBRTC_UDP_PORT, WEBRTC_PORT_MIN and WEBRTC_PORT_MAX ask for."""
    if settings.webrtc_udp_port is not None:
        return SharedPort(udp_port_for(settings.webrtc_udp_port, worker))
    if settings.webrtc_port_min is not None and settings.webrtc_port_max is not None:
        return PortRange(settings.webrtc_port_min, settings.webrtc_port_max)
    return AnyPort()


def udp_port_for(first: int, worker: int) -> int:
    """A media process's own port: two of them cannot share one, because the kernel would deal out a session's datagrams to either."""
    return first + worker


class SharedPort:
    """One port for all connections, on every address of this machine, also on those that it gets later."""

    def __init__(self, port: int):
        self._port = port
        self._counts = MuxCounts()
        self._muxes: dict[str, UdpMux] = {}

    def start(self) -> None:
        for address in (*LOOPBACK, *get_host_addresses(use_ipv4=True, use_ipv6=True)):
            try:
                self._bind(address)
            except OSError as error:
                if error.errno in NOT_OURS:
                    continue
                self.close()
                raise cannot_bind(self._port, address, error) from error

    def take(self, addresses: Sequence[str]) -> list[UdpMux]:
        for address in addresses:
            if address not in self._muxes:
                try:
                    self._bind(address)
                except OSError as error:
                    log.warning("address_without_port", address=address, port=self._port, error=str(error))
        return [mux for address, mux in self._muxes.items() if address in addresses or address in LOOPBACK]

    def status(self) -> dict[str, object]:
        return {"udp_port": self._port, "addresses": list(self._muxes), **self._counts.as_dict()}

    def close(self) -> None:
        for mux in self._muxes.values():
            mux.close()
        self._muxes.clear()

    def _bind(self, address: str) -> None:
        self._muxes[address] = UdpMux(address, self._port, self._counts)


class PortRange:
    """A port of its own for each connection, from a range."""

    def __init__(self, first: int, last: int):
        self._ports = range(first, last + 1)
        self._next = 0
        self._counts = MuxCounts()

    def start(self) -> None:
        """Nothing stays bound."""

    def take(self, addresses: Sequence[str]) -> list[UdpMux]:
        """The least recently used port that is free on all addresses."""
        for _ in self._ports:
            port = self._ports[self._next]
            self._next = (self._next + 1) % len(self._ports)
            muxes = bind_all((*addresses, *LOOPBACK), port, self._counts)
            if muxes is not None:
                return muxes
        raise NoFreePort(f"All {len(self._ports)} ports from {self._ports[0]} to {self._ports[-1]} are in use.")

    def status(self) -> dict[str, object]:
        return {"port_min": self._ports[0], "port_max": self._ports[-1], **self._counts.as_dict()}

    def close(self) -> None:
        """Each socket closes with its connection."""


class AnyPort:
    """Any free port for each connection, another one on each address."""

    def __init__(self) -> None:
        self._counts = MuxCounts()

    def start(self) -> None:
        """Nothing stays bound."""

    def take(self, addresses: Sequence[str]) -> list[UdpMux]:
        return bind_all(addresses, 0, self._counts) or []

    def status(self) -> dict[str, object]:
        return {"udp_port": "any", **self._counts.as_dict()}

    def close(self) -> None:
        """Each socket closes with its connection."""


OTHER_ADVICE = "Ports below 1024 need a privilege, and every socket counts as an open file (ulimit -n)."
NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # an address that has gone, or no IPv6 on this machine


def bind_all(addresses: Sequence[str], port: int, counts: MuxCounts) -> list[UdpMux] | None:
    """The port on all addresses that this machine has; None if it is in use on one of them. Raises NoFreePort for any other reason."""
    muxes: list[UdpMux] = []
    for address in dict.fromkeys(addresses):
        try:
            muxes.append(UdpMux(address, port, counts, exclusive=True))
        except OSError as error:
            if error.errno in NOT_OURS:
                continue
            for mux in muxes:
                mux.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise NoFreePort(f"UDP port {port} on {address} cannot be bound: {error.strerror}.", advice=OTHER_ADVICE) from error
    return muxes


def cannot_bind(port: int, address: str, error: OSError) -> CannotStart:
    if error.errno == errno.EADDRINUSE:
        return CannotStart(f"UDP port {port} on {address} is in use.", advice="Stop what uses it, or set WEBRTC_UDP_PORT to another port.")
    return CannotStart(f"UDP port {port} on {address} cannot be bound: {error.strerror}.", advice="Set WEBRTC_UDP_PORT to another port.")
