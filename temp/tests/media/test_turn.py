"""Sessions through a real TURN server, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aioice import Connection
from aioice.ice import CandidatePair, StunProtocol
from aiortc import RTCConfiguration, RTCIceServer
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from conftest import MakeSettings
from receiver import Receiver
from structlog.testing import capture_logs
from turn_server import FIRST_RELAY_PORT, LAST_RELAY_PORT, PASSWORD, USERNAME, free_port, turn_server
from virtual_time import in_virtual_time
from watched_session import NothingLeft, WatchedSession, negotiation

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, UpstreamFailed
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice import ice_network
from gpuserver.media.peers import Peers
from gpuserver.media.turn_relay import SILENT_SECONDS, TURN_SECONDS
from gpuserver.web.webrtc_config import webrtc_config


@contextlib.asynccontextmanager
async def peers_with(settings: Settings) -> AsyncIterator[Peers]:
    async with NothingLeft():
        encoding = Encoding(1)
        async with Peers(ice_network(settings), LoopClock(), encoding) as peers:
            yield peers
        await encoding.aclose()


def turn_of(peers: Peers) -> object:
    network = peers.status()["network"]
    assert isinstance(network, dict)
    return network["turn"]


def pair_in_use(receiver: Receiver) -> CandidatePair:
    transport = receiver.connection.getTransceivers()[0].receiver.transport.transport
    return transport._connection._nominated[1]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_session_through_the_relay_alone(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fullchain.pem"))
    async with turn_server(tmp_path) as server:
        ours = {"tls": server.secure_address}.get(transport, f"turn:{server.address}?transport={transport}")
        settings = make_settings(
            webrtc_turn_server="turn.example.org:3478",
            webrtc_turn_server_local=ours,
            webrtc_turn_username=USERNAME,
            webrtc_turn_password=PASSWORD,
            webrtc_ice_policy="relay",
        )
        told = webrtc_config(settings)
        assert (told.iceTransportPolicy, [each.urls for each in told.iceServers]) == ("relay", [["turn:turn.example.org:3478"]])
        browser = RTCConfiguration(
            iceServers=[RTCIceServer(urls=f"turn:{server.address}", username=USERNAME, credential=PASSWORD)],
            iceTransportPolicy=RTCIceTransportPolicy.RELAY,
        )
        async with peers_with(settings) as peers, Receiver(configuration=browser) as receiver:
            await receiver.connect(negotiation(peers, WatchedSession()))
            await receiver.until(lambda: len(receiver.pictures) > 5 and len(receiver.sounds) > 5)
            pair = pair_in_use(receiver)
            for candidate in (pair.local_candidate, pair.remote_candidate):
                assert candidate.type == "relay"
                assert FIRST_RELAY_PORT <= candidate.port <= LAST_RELAY_PORT
            port = server.secure_port if transport == "tls" else server.port
            assert turn_of(peers) == {"server": f"127.0.0.1:{port} ({transport.upper()})", "status": "ok"}


async def test_a_certificate_that_is_not_trusted_is_said_in_plain_words(tmp_path: Path, make_settings: MakeSettings) -> None:
    async with turn_server(tmp_path) as server:
        settings = make_settings(webrtc_turn_server=server.secure_address, webrtc_turn_username=USERNAME, webrtc_turn_password=PASSWORD)
        async with peers_with(settings) as peers, Receiver() as receiver:
            await receiver.connect(negotiation(peers, WatchedSession()))
            assert "has a certificate that is not trusted here (self-signed certificate)" in str(turn_of(peers))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_server_that_dies_takes_its_calls_with_it_and_nothing_is_left_of_them(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr("gpuserver.media.ice_connection.SILENCE_SECONDS", 0.5)
    session = WatchedSession()
    async with turn_server(tmp_path) as server:
        settings = make_settings(
            webrtc_turn_server=f"turn:{server.address}?transport={transport}",
            webrtc_turn_username=USERNAME,
            webrtc_turn_password=PASSWORD,
            webrtc_ice_policy="relay",
        )
        async with peers_with(settings) as peers:
            receiver = Receiver()
            await receiver.connect(negotiation(peers, session))
            server.process.kill()
            async with asyncio.timeout(10):
                await session.detached.wait()
            assert len(peers) == 0
            await receiver.aclose()


async def test_wrong_credentials_are_said_once_in_the_log_and_always_in_health(tmp_path: Path, make_settings: MakeSettings) -> None:
    async with turn_server(tmp_path) as server:
        settings = make_settings(webrtc_turn_server=server.address, webrtc_turn_username=USERNAME, webrtc_turn_password="guessed")
        with capture_logs() as logs:
            async with peers_with(settings) as peers:
                for number in range(2):
                    async with Receiver() as receiver:
                        await receiver.connect(negotiation(peers, WatchedSession(f"s{number}")))
                sentence = f"The TURN server {server.address} (UDP) refuses WEBRTC_TURN_USERNAME and WEBRTC_TURN_PASSWORD (error 401)."
                assert turn_of(peers) == {"server": f"{server.address} (UDP)", "status": "failed", "reason": sentence}
        assert [line["message"] for line in logs if line["event"] == "turn_failed"] == [sentence]


async def test_a_server_without_a_port_left_says_so(tmp_path: Path, make_settings: MakeSettings) -> None:
    async with turn_server(tmp_path, f"--max-port={FIRST_RELAY_PORT}") as server:
        settings = make_settings(webrtc_turn_server=server.address, webrtc_turn_username=USERNAME, webrtc_turn_password=PASSWORD)
        async with peers_with(settings) as peers, Receiver() as one, Receiver() as two:
            await one.connect(negotiation(peers, WatchedSession("s1")))
            await two.connect(negotiation(peers, WatchedSession("s2")))
            assert "has no relay port left (error 508)" in str(turn_of(peers))


async def test_a_server_that_is_down_costs_a_known_time_and_the_session_works(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuserver.media.turn_relay.TURN_SECONDS", 0.2)
    settings = make_settings(webrtc_turn_server=f"127.0.0.1:{free_port()}", webrtc_turn_username=USERNAME, webrtc_turn_password=PASSWORD)
    async with peers_with(settings) as peers, Receiver() as receiver:
        await receiver.connect(negotiation(peers, WatchedSession()))
        await receiver.until(lambda: len(receiver.pictures) > 2)
        assert "does not answer in time" in str(turn_of(peers))
    assert TURN_SECONDS == ice_network(settings).gathering_seconds == 3.0


@in_virtual_time
async def test_only_the_first_session_waits_long_for_a_server_that_is_silent(make_settings: MakeSettings) -> None:
    now, took = asyncio.get_running_loop().time, []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        relay = ice_network(make_settings(webrtc_turn_server=f"127.0.0.1:{silent.getsockname()[1]}")).relay
        assert relay is not None
        for only_way in (False, False, True):
            began = now()
            assert await relay.candidate(lambda: StunProtocol(Connection(ice_controlling=False)), only_way=only_way) is None
            took.append(now() - began)
    assert took == pytest.approx([TURN_SECONDS, SILENT_SECONDS, TURN_SECONDS])


async def test_a_relay_that_is_down_is_an_error_where_nothing_else_is_allowed(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuserver.media.turn_relay.TURN_SECONDS", 0.2)
    settings = make_settings(webrtc_turn_server=f"turn:127.0.0.1:{free_port()}?transport=tcp", webrtc_ice_policy="relay")
    async with peers_with(settings) as peers, Receiver() as receiver:
        with pytest.raises(UpstreamFailed, match="no network address") as refusal:
            await negotiation(peers, WatchedSession())(await receiver.offer())
        assert "TURN" in refusal.value.advice
        assert "cannot be used" in str(turn_of(peers))


@pytest.mark.parametrize("address", ["turn:host:3478?transport=sctp", "turns:host:5349?transport=udp"])
def test_a_transport_that_cannot_be_used_is_refused_at_start(make_settings: MakeSettings, address: str) -> None:
    with pytest.raises(CannotStart, match="WEBRTC_TURN_SERVER names a transport"):
        ice_network(make_settings(webrtc_turn_server=address))
