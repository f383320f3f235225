"""aiortc's peer connection with our ICE in it."""

from __future__ import annotations

from typing import Any

from aiortc import RTCConfiguration, RTCDtlsTransport, RTCIceCandidate, RTCIceTransport, RTCPeerConnection
from aiortc.exceptions import InvalidStateError

from gpuserver.media.ice_connection import MAX_PAIRS, IceConnection, IceNetwork

# aiortc builds every ICE connection itself, from a class that it names in its module, in this private method.
CREATE_TRANSPORT = "_RTCPeerConnection__createDtlsTransport"
CONNECT = "_RTCPeerConnection__connect"


class PeerConnection(RTCPeerConnection):
    """A connection of `network`; it asks no STUN or TURN server but that network's."""

    def __init__(self, network: IceNetwork):
        self._network = network
        self._candidates_taken = 0
        super().__init__(RTCConfiguration(iceServers=[]))

    async def addIceCandidate(self, candidate: RTCIceCandidate | None) -> None:  # noqa: N802 - aiortc's name
        """Take a candidate; MAX_PAIRS in all, because aiortc keeps each of them for as long as it lives."""
        if self._candidates_taken < MAX_PAIRS:
            self._candidates_taken += 1
            await super().addIceCandidate(candidate)

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802 - aiortc's name
        made: Any = getattr(super(), CREATE_TRANSPORT)()
        use_network(made.transport, self._network)
        return made  # type: ignore[no-any-return]

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802 - aiortc's name
        """aiortc does not expect to be closed meanwhile, which is how every browser leaves that does not wait."""
        try:
            await getattr(super(), CONNECT)()
        except InvalidStateError:
            if self.connectionState != "closed":
                raise


def use_network(transport: RTCIceTransport, network: IceNetwork) -> None:
    """Put our ICE connection in the place of the one that aiortc has just made. Sections of one bundle share their name and password."""
    parameters = transport.iceGatherer.getLocalParameters()
    use_connection(transport, IceConnection(network, parameters.usernameFragment, parameters.password))


def use_connection(transport: RTCIceTransport, connection: IceConnection) -> None:
    """Send and receive through this connection from now on."""
    transport.iceGatherer._connection = transport._connection = connection
    transport._recv, transport._send = connection.recv, connection.send
