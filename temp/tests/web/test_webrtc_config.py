"""What browsers are told about STUN and TURN."""

from __future__ import annotations

from conftest import MakeSettings

from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import IceServer, WebRtcConfig


def test_no_server_is_named_unless_configured(make_settings: MakeSettings) -> None:
    assert webrtc_config(make_settings()) == WebRtcConfig()


def test_stun_and_turn_get_their_scheme_and_the_password(make_settings: MakeSettings) -> None:
    settings = make_settings(
        webrtc_stun_server="stun.example.org:3478",
        webrtc_turn_server="turns:turn.example.org:5349",
        webrtc_turn_server_local="10.0.0.1:3478",
        webrtc_turn_username="u",
        webrtc_turn_password="p",
        webrtc_ice_policy="relay",
    )
    assert webrtc_config(settings) == WebRtcConfig(
        iceServers=[
            IceServer(urls=["stun:stun.example.org:3478"]),
            IceServer(urls=["turns:turn.example.org:5349"], username="u", credential="p"),
        ],
        iceTransportPolicy="relay",
    )


def test_the_ports_that_browsers_send_to(make_settings: MakeSettings) -> None:
    assert webrtc_config(make_settings(webrtc_udp_port=8200)).portRange == [8200, 8200]
    assert webrtc_config(make_settings(webrtc_udp_port=8200, media_workers=3)).portRange == [8200, 8202]
    assert webrtc_config(make_settings(webrtc_port_min=9000, webrtc_port_max=9009)).portRange == [9000, 9009]
    assert webrtc_config(make_settings(webrtc_udp_port=8200, webrtc_ice_policy="relay")).portRange is None


def test_the_public_address(make_settings: MakeSettings) -> None:
    assert webrtc_config(make_settings(webrtc_public_ip="203.0.113.7, 2001:db8::7")).publicIp == "203.0.113.7,2001:db8::7"
