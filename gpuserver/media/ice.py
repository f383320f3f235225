"""ICE as the settings want it, and the candidates that a browser sends."""

from __future__ import annotations

import ipaddress

from aioice import TransportPolicy
from aiortc import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, InvalidInput
from gpuserver.media.ice_connection import COMPONENT, IceNetwork
from gpuserver.media.ports import make_ports
from gpuserver.media.server_address import read_address
from gpuserver.media.turn_relay import TurnRelay, TurnServer
from gpuserver.wire import IceCandidate

MAX_PRIORITY = 2**32 - 1


def ice_network(settings: Settings, worker: int = 0) -> IceNetwork:
    """What our side of all connections uses, its ports not bound yet. worker: which of MEDIA_WORKERS this process is.

    Raises CannotStart where a setting is not a STUN or TURN address.
    """
    stun = read_address("WEBRTC_STUN_SERVER", "stun", settings.webrtc_stun_server) if settings.webrtc_stun_server else None
    turn = turn_server_of(settings, "WEBRTC_TURN_SERVER_LOCAL") or turn_server_of(settings, "WEBRTC_TURN_SERVER")
    return IceNetwork(
        make_ports(settings, worker),
        policy=TransportPolicy.RELAY if settings.webrtc_ice_policy == "relay" else TransportPolicy.ALL,
        public_addresses=settings.webrtc_public_ip,
        stun_server=None if stun is None else (stun.host, stun.port),
        relay=None if turn is None else TurnRelay(turn),
    )


def remote_candidate(candidate: IceCandidate) -> RTCIceCandidate | None:
    """The candidate as aiortc wants it; None for one that is of no use to us. Raises InvalidInput for a malformed one.

    Of no use are the end-of-candidates mark, TCP, and mDNS names (Chromium hides its local addresses behind xxx.local;
    looking them up costs up to a second, and its checks reach us all the same and become peer-reflexive candidates).
    """
    text = candidate.candidate.strip().removeprefix("a=").removeprefix("candidate:")
    if not text:
        return None
    try:
        parsed = candidate_from_sdp(text)
    except (AssertionError, ValueError) as error:
        raise InvalidInput(f"This is not an ICE candidate: {candidate.candidate[:100]!r}.") from error
    if not (0 < parsed.port < 65536 and 0 <= parsed.priority <= MAX_PRIORITY):
        raise InvalidInput(f"The port or the priority of this ICE candidate is out of range: {candidate.candidate[:100]!r}.")
    if parsed.protocol.lower() != "udp" or parsed.component != COMPONENT or parsed.ip.endswith(".local"):
        return None
    if not _is_unicast(parsed.ip):
        return None
    parsed.sdpMid, parsed.sdpMLineIndex = candidate.sdpMid, candidate.sdpMLineIndex
    if parsed.sdpMid is None and parsed.sdpMLineIndex is None:
        parsed.sdpMLineIndex = 0  # sections share one transport
    return parsed


def _is_unicast(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InvalidInput(f"The address of an ICE candidate is not an IP address: {address[:100]!r}.") from error
    return not (parsed.is_unspecified or parsed.is_multicast)


def turn_server_of(settings: Settings, name: str) -> TurnServer | None:
    """What the setting `name` says, with the user that all TURN settings share. Raises CannotStart."""
    value = getattr(settings, name.lower())
    if value is None:
        return None
    address = read_address(name, "turn", value)
    transport = address.transport or ("tcp" if address.secure else "udp")
    if transport not in (("tcp",) if address.secure else ("udp", "tcp")):
        advice = "Use udp or tcp; turns is always tcp."
        raise CannotStart(f"{name} names a transport that cannot be used: {transport!r}.", advice=advice)
    password = settings.webrtc_turn_password.get_secret_value() if settings.webrtc_turn_password else None
    return TurnServer(address.host, address.port, settings.webrtc_turn_username, password, ssl=address.secure, transport=transport)
