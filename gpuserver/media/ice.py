"""ICE as the settings want it, and the candidates that a browser sends."""

from __future__ import annotations

import ipaddress

from aiortc import RTCConfiguration, RTCIceCandidate, RTCIceServer
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import candidate_from_sdp

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, InvalidInput
from gpuserver.wire import IceCandidate

RTP_COMPONENT = 1  # RTCP shares it (rtcp-mux), so component 2 carries nothing
MAX_PRIORITY = 2**32 - 1


def rtc_configuration(settings: Settings) -> RTCConfiguration:
    """What our side of a connection uses. Never None for iceServers: aiortc would then ask a public STUN server.

    Raises CannotStart where a setting is not a STUN or TURN address.
    """
    servers = []
    if settings.webrtc_stun_server:
        servers.append(RTCIceServer(urls=_uri("WEBRTC_STUN_SERVER", "stun", settings.webrtc_stun_server)))
    turn = settings.webrtc_turn_server_local or settings.webrtc_turn_server
    if turn:
        name = "WEBRTC_TURN_SERVER_LOCAL" if settings.webrtc_turn_server_local else "WEBRTC_TURN_SERVER"
        servers.append(RTCIceServer(urls=_uri(name, "turn", turn), username=settings.webrtc_turn_username, credential=_password(settings)))
    return RTCConfiguration(iceServers=servers, iceTransportPolicy=RTCIceTransportPolicy(settings.webrtc_ice_policy))


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
    if parsed.protocol.lower() != "udp" or parsed.component != RTP_COMPONENT or parsed.ip.endswith(".local"):
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


def _password(settings: Settings) -> str | None:
    return settings.webrtc_turn_password.get_secret_value() if settings.webrtc_turn_password else None


def _uri(setting: str, scheme: str, value: str) -> str:
    """`value` with its scheme: host:port alone is accepted."""
    uri = value if value.startswith((f"{scheme}:", f"{scheme}s:")) else f"{scheme}:{value}"
    try:
        parse_stun_turn_uri(uri)
    except ValueError as error:
        raise CannotStart(f"{setting} must look like {scheme}:host:port, not {value!r}.") from error
    return uri
