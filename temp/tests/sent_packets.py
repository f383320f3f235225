"""What a Sending hands to aiortc's transport, with the time at which it does, without a connection."""

from __future__ import annotations

from typing import cast

from aiortc import RTCDtlsTransport, RTCRtpSender
from aiortc.rtp import RtpPacket
from virtual_time import now

from gpuserver.media.sending import Encoded, Sending, _Header

PAYLOAD_TYPE = 97


class NotingTransport:
    """In place of aiortc's."""

    state = "connected"

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []

    async def _send_rtp(self, data: bytes) -> None:
        self.sent.append((now(), data))


class NoTrack:
    async def recv(self) -> Encoded:
        raise AssertionError("nobody asks")

    def stop(self) -> None:
        pass


class SentPackets:
    """A Sending of pictures and everything that it has sent."""

    def __init__(self) -> None:
        self._transport = NotingTransport()
        self.sender = RTCRtpSender("video", cast(RTCDtlsTransport, self._transport))
        self.sending = Sending(self.sender, NoTrack(), 0.0, 90_000)
        self._header = _Header(PAYLOAD_TYPE, self.sender)

    async def send(self, *payloads: bytes, timestamp: int = 0) -> None:
        """One picture."""
        await self.sending._send(self._header, Encoded(payloads, timestamp))

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self._transport.sent]

    @property
    def sizes(self) -> list[int]:
        return [len(data) for _, data in self._transport.sent]

    @property
    def packets(self) -> list[RtpPacket]:
        return [RtpPacket.parse(data) for _, data in self._transport.sent]
