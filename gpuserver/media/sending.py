"""Makes aiortc's sender send our packets as they are, pass on what the browser asks for, and report when they were due.

aiortc has no public way to any of this. test_aiortc_guard.py fails when a name or a behaviour used here changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket

SENDER_ENCODER = "_RTCRtpSender__encoder"
SEND_RTCP = "_send_rtcp"
SEND_KEY_FRAME = "_send_keyframe"
LAST_REPORT = "_RTCRtpSender__lsr"  # how the answer to a report is recognised, for the round-trip time
LAST_REPORT_TIME = "_RTCRtpSender__lsr_time"
NEGOTIATED_CODECS = "_codecs"

NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970, RFC 5905


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a track hands to its sender. payloads: of the RTP packets, in order. timestamp: in units of the codec's RTP clock."""

    payloads: list[bytes]
    timestamp: int


class Feedback(Protocol):
    """Who hears what the browser says about the stream."""

    def note_estimate(self, estimate: int) -> None:
        """The browser believes that the network carries so many bit/s (REMB)."""
        ...

    def want_key_frame(self) -> None:
        """The browser has lost a picture (PLI, FIR)."""
        ...


class Sender:
    """Stands in a sender's place for its encoder. epoch: Unix time of timestamp 0. rate: of the RTP clock, Hz."""

    def __init__(self, sender: RTCRtpSender, epoch: float, rate: int, feedback: Feedback | None = None):
        self._epoch = epoch
        self._rate = rate
        self._feedback = feedback
        self._sender = sender
        self._timestamp: int | None = None  # of the newest packet: what the next report speaks of
        self._send_rtcp = sender._send_rtcp
        self._estimate = 0
        setattr(sender, SENDER_ENCODER, self)
        setattr(sender, SEND_RTCP, self._send_rtcp_with_capture_time)
        if feedback is not None:
            setattr(sender, SEND_KEY_FRAME, feedback.want_key_frame)

    def pack(self, encoded: Encoded) -> tuple[list[bytes], int]:
        """Called by aiortc for whatever a track returns that is not a raw frame."""
        self._timestamp = encoded.timestamp
        return encoded.payloads, encoded.timestamp

    @property
    def target_bitrate(self) -> int:
        """The browser's newest estimate in bit/s, 0 before the first. aiortc writes it here."""
        return self._estimate

    @target_bitrate.setter
    def target_bitrate(self, estimate: int) -> None:
        self._estimate = estimate
        if self._feedback is not None:
            self._feedback.note_estimate(estimate)

    async def _send_rtcp_with_capture_time(self, packets: list[AnyRtcpPacket]) -> None:
        """A report pairs an RTP time with a wall-clock time. aiortc takes the time of sending, so that a late picture
        would shift the lips at the receiver; ours is the time at which the picture was due."""
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and self._timestamp is not None:
                packet.sender_info.ntp_timestamp = round((self._epoch + self._timestamp / self._rate + NTP_EPOCH) * 2**32)
                setattr(self._sender, LAST_REPORT, packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF)
                setattr(self._sender, LAST_REPORT_TIME, time.time())
        await self._send_rtcp(packets)


def negotiated_codec(transceiver: RTCRtpTransceiver) -> str:
    """The MIME type of the codec that both sides will use, such as "video/H264"."""
    return str(getattr(transceiver, NEGOTIATED_CODECS)[0].mimeType)


def unix_time_of(monotonic_time: float, monotonic: Callable[[], float] = time.monotonic) -> float:
    """A moment of the monotonic clock in Unix time."""
    return time.time() + monotonic_time - monotonic()
