"""What a browser needs to know before it opens a peer connection."""

from __future__ import annotations

from gpuserver.config import Settings
from gpuserver.wire import IceServer, WebRtcConfig


def webrtc_config(settings: Settings) -> WebRtcConfig:
    """GET /v1/webrtc/config, from the settings; without WEBRTC_STUN_SERVER and WEBRTC_TURN_SERVER no server is named."""
    servers = []
    if settings.webrtc_stun_server:
        servers.append(IceServer(urls=[_with_scheme("stun", settings.webrtc_stun_server)]))
    if settings.webrtc_turn_server:
        password = settings.webrtc_turn_password
        servers.append(
            IceServer(
                urls=[_with_scheme("turn", settings.webrtc_turn_server)],
                username=settings.webrtc_turn_username,
                credential=None if password is None else password.get_secret_value(),
            )
        )
    return WebRtcConfig(
        iceServers=servers,
        iceTransportPolicy=settings.webrtc_ice_policy,
        publicIp=",".join(settings.webrtc_public_ip) or None,
        portRange=_port_range(settings),
    )


def _port_range(settings: Settings) -> list[int] | None:
    """The first and the last UDP port that browsers send to; None if it may be any, or only the TURN server's."""
    if settings.webrtc_ice_policy == "relay":
        return None
    if settings.webrtc_udp_port is not None:
        return [settings.webrtc_udp_port, settings.webrtc_udp_port + settings.media_workers - 1]
    if settings.webrtc_port_min is not None and settings.webrtc_port_max is not None:
        return [settings.webrtc_port_min, settings.webrtc_port_max]
    return None


def _with_scheme(scheme: str, server: str) -> str:
    return server if server.startswith((scheme + ":", scheme + "s:")) else f"{scheme}:{server}"
