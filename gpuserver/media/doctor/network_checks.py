"""The network: which addresses a browser gets through to, which port to open, whether TURN relays."""

from __future__ import annotations

from collections.abc import Sequence

from aioice import TransportPolicy

from gpuserver.config import Settings
from gpuserver.media.doctor.checks import Check, failed, off, ok
from gpuserver.media.doctor.ice_trial import Trial, try_candidates
from gpuserver.media.ice import turn_server_of
from gpuserver.media.ice_connection import IceConnection, IceNetwork, RelayedProtocol
from gpuserver.media.ports import AnyPort
from gpuserver.media.turn_relay import TurnRelay
from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import Finding

DIRECT, PORT, RELAY, BROWSERS_RELAY = "WebRTC directly", "UDP port", "WebRTC through TURN", "TURN as browsers see it"
ADVICE = "Check that it runs, its address, WEBRTC_TURN_USERNAME, WEBRTC_TURN_PASSWORD, and the way to it."


def network_checks(settings: Settings, network: IceNetwork) -> list[Check]:
    """To be run while the network's ports are bound."""
    relay_only = network.policy is TransportPolicy.RELAY
    return [
        Check(DIRECT, lambda: _direct(network), needed=not relay_only),
        Check(PORT, lambda: _port(settings)),
        Check(RELAY, lambda: _relay(network), needed=relay_only),
        Check(BROWSERS_RELAY, lambda: _browsers_relay(settings), needed=relay_only),
    ]


async def _direct(network: IceNetwork) -> Sequence[Finding]:
    if network.policy is TransportPolicy.RELAY:
        return [off(DIRECT, "WEBRTC_ICE_POLICY=relay: everything goes through the TURN server.")]
    trials = await try_candidates(network, "host")
    if not trials:
        advice = "Give this machine a network address, or set WEBRTC_PUBLIC_IP."
        return [failed(DIRECT, "This machine has no network address besides loopback.", advice, needed=network.relay is None)]
    reached = any(trial.works for trial in trials)
    return [_path(trial, network, needed=not reached) for trial in trials]


def _path(trial: Trial, network: IceNetwork, *, needed: bool) -> Finding:
    where = f"{trial.candidate.host} UDP {trial.candidate.port}"
    if trial.works:
        return ok(DIRECT, f"A client on this machine gets through to {where}.")
    if trial.candidate.host in network.public_addresses:
        detail = f"A client on this machine does not get through to {where}, which WEBRTC_PUBLIC_IP announces."
        advice = "Map this UDP port to this machine under the same number. Many routers let no machine reach itself: then try from outside."
    else:
        detail = f"A client on this machine does not get through to {where}."
        advice = "A firewall on this machine drops UDP: let this port in."
    return failed(DIRECT, detail, advice, needed=needed)


async def _port(settings: Settings) -> Sequence[Finding]:
    told = webrtc_config(settings)
    if settings.webrtc_ice_policy == "relay":
        return [off(PORT, "None is needed: everything goes through the TURN server.")]
    if told.portRange is None:
        advice = "Behind Docker, a router or a tunnel set WEBRTC_UDP_PORT, for example 8200, and open that one port."
        return [ok(PORT, "Each session takes any free UDP port; browsers must reach all of them.", advice)]
    first, last = told.portRange
    ports = f"{first}" if first == last else f"{first}-{last}"
    advice = f"Open it from outside: docker run -p {ports}:{ports}/udp …, and in the firewall UDP {ports}."
    return [ok(PORT, f"UDP {ports} is all that browsers send to.", advice)]


async def _relay(network: IceNetwork) -> Sequence[Finding]:
    needed = network.policy is TransportPolicy.RELAY
    if network.relay is None:
        if needed:
            return [failed(RELAY, "WEBRTC_ICE_POLICY=relay, and no TURN server is set.", "Set WEBRTC_TURN_SERVER.", needed=True)]
        return [off(RELAY, "No TURN server is set. Browsers that can reach no UDP port of this machine get no picture.")]
    trials = await try_candidates(network, "relay")
    if not trials:
        return [failed(RELAY, str(network.relay.status()["reason"]), ADVICE, needed=needed)]
    relayed = f"{trials[0].candidate.host} UDP {trials[0].candidate.port}"
    if trials[0].works:
        return [ok(RELAY, f"A client gets through to us at {relayed}, relayed by {network.relay.server}.")]
    detail = f"{network.relay.server} gave us {relayed}, and a client on this machine does not get through to it."
    return [failed(RELAY, detail, "Open the TURN server's relay ports, and check its external-ip.", needed=needed)]


async def _browsers_relay(settings: Settings) -> Sequence[Finding]:
    server = turn_server_of(settings, "WEBRTC_TURN_SERVER")
    if server is None:
        return [off(BROWSERS_RELAY, "No TURN server is announced to browsers (WEBRTC_TURN_SERVER).")]
    holder = IceConnection(IceNetwork(AnyPort()), None, None)
    relay = TurnRelay(server)
    try:
        made = await relay.candidate(lambda: RelayedProtocol(holder), only_way=False)
        if made is None:
            advice = "Seen from this machine; if only browsers can reach that address, ignore this. " + ADVICE
            return [failed(BROWSERS_RELAY, str(relay.status()["reason"]), advice, needed=False)]
        await made[1].close()
    finally:
        await holder.close()
    return [ok(BROWSERS_RELAY, f"{server} takes WEBRTC_TURN_USERNAME and WEBRTC_TURN_PASSWORD and relays.")]
