"""Sends what our tracks have encoded, in the place of aiortc's own RTP loop, and reports when it was due.

aiortc has no public way to any of this. test_aiortc_guard.py fails when a name or a behaviour used here changes.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import AnyRtcpPacket, HeaderExtensions, RtcpSrPacket

from gpuserver.media.spreading import Spreading

NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970, RFC 5905
_PLACE = 0xA5C35A  # stands in a header where the time of sending goes
HISTORY = 256  # packets that can be sent again: 2 s of pictures
LEAST_ROUND_TRIP = 0.02  # seconds; the browser's reports tell the real one

_PRIVATE = "_RTCRtpSender__"
STARTED, EXITED = _PRIVATE + "rtp_started", _PRIVATE + "rtp_exited"  # events that RTCRtpSender.stop() waits for
MID, EXTENSIONS, RTX_TYPE = _PRIVATE + "mid", _PRIVATE + "rtp_header_extensions_map", _PRIVATE + "rtx_payload_type"
ENCODER = _PRIVATE + "encoder"  # whose target_bitrate is set to the browser's estimate
ROUND_TRIP = _PRIVATE + "rtt"  # seconds; None before the first answer to a report
LAST_REPORT, LAST_REPORT_TIME = _PRIVATE + "lsr", _PRIVATE + "lsr_time"  # how an answer to a report is recognised
RUN, RETRANSMIT, SEND_RTCP, SEND_KEY_FRAME = "_run_rtp", "_retransmit", "_send_rtcp", "_send_keyframe"
NEGOTIATED_CODECS = "_codecs"

_Sent = tuple[int, bytes, bytes, float]  # sequence number, header, payload, when it was sent again
NOTHING_SENT: _Sent = (-1, b"", b"", 0.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a track hands over. payloads: of the RTP packets, in order. timestamp: in units of the codec's RTP clock."""

    payloads: Sequence[bytes]
    timestamp: int


class EncodedTrack(Protocol):
    async def recv(self) -> Encoded:
        """The next packets, when they are due. Raises MediaStreamError once stopped."""
        ...

    def stop(self) -> None: ...


class Feedback(Protocol):
    """Who hears what the browser says about the stream."""

    def note_estimate(self, estimate: int) -> None:
        """The browser believes that the network carries so many bit/s (REMB)."""
        ...

    def want_key_frame(self) -> None:
        """The browser has lost a picture (PLI, FIR)."""
        ...


class Sending:
    """One sender's packets. To be made before the sender starts. epoch: Unix time of timestamp 0. rate: of the RTP clock, Hz."""

    def __init__(self, sender: RTCRtpSender, track: EncodedTrack, epoch: float, rate: int, feedback: Feedback | None = None):
        self._sender = sender
        self._track = track
        self._epoch = epoch
        self._rate = rate
        self._feedback = feedback
        self._estimate = 0
        self._sequence = secrets.randbelow(1 << 15)  # in the lower half, so that the first wrap is far (RFC 3711, 3.3.1)
        self._origin = secrets.randbits(32)
        self._timestamp: int | None = None  # of the newest packet, without the origin: what the next report speaks of
        self._packets = self._octets = 0
        self._history: dict[int, _Sent] = {}
        self._now = asyncio.get_running_loop().time
        self._spreading = Spreading(self._now)
        self._sent_again: deque[float] = deque([-math.inf] * HISTORY, HISTORY)  # when, the newest last
        self._retransmission = _Retransmission(sender)
        self._send_rtcp = sender._send_rtcp
        replaced: dict[str, Any] = {RUN: self._run, RETRANSMIT: self._retransmit, SEND_RTCP: self._report, ENCODER: self}
        if feedback is not None:
            replaced[SEND_KEY_FRAME] = feedback.want_key_frame
        for name, ours in replaced.items():
            setattr(sender, name, ours)

    @property
    def target_bitrate(self) -> int:
        """The browser's newest estimate in bit/s, 0 before the first. aiortc writes it here."""
        return self._estimate

    @target_bitrate.setter
    def target_bitrate(self, estimate: int) -> None:
        self._estimate = estimate
        if self._feedback is not None:
            self._feedback.note_estimate(estimate)

    async def _run(self, codec: RTCRtpCodecParameters) -> None:
        """Send until the track or the connection ends."""
        sender = self._sender
        getattr(sender, STARTED).set()
        header = _Header(codec.payloadType or 0, sender)  # a negotiated codec has one
        try:
            while True:
                await self._send(header, await self._track.recv())
        except (ConnectionError, MediaStreamError, asyncio.CancelledError):
            pass  # each is how a stream ends; nobody waits for this task but through EXITED
        except Exception:
            log.exception("sending_failed", kind=sender.kind)
        self._track.stop()
        getattr(sender, EXITED).set()

    async def _send(self, header: _Header, encoded: Encoded) -> None:
        transport, left = self._sender.transport, len(encoded.payloads)
        self._timestamp = encoded.timestamp
        self._packets += left
        for wait, group in self._spreading.groups(encoded.payloads):
            if wait:
                await asyncio.sleep(wait)
            header.begin((self._origin + encoded.timestamp) & 0xFFFFFFFF)
            for payload in group:
                left -= 1
                head = header.pack(self._sequence, marker=not left)
                self._history[self._sequence % HISTORY] = (self._sequence, head, payload, -math.inf)
                self._sequence = (self._sequence + 1) & 0xFFFF
                await transport._send_rtp(head + payload)
                self._octets += len(payload)

    async def _retransmit(self, sequence: int) -> None:
        """The browser misses a packet (NACK). It asks again while the answer is on its way, and a slow link would carry little else.

        One of its packets can ask for thousands: no more than HISTORY are sent again in a second.
        """
        now, slot = self._now(), sequence % HISTORY
        known, head, payload, again_at = self._history.get(slot, NOTHING_SENT)
        on_its_way = max(getattr(self._sender, ROUND_TRIP) or 0.0, LEAST_ROUND_TRIP)
        if known == sequence and again_at <= now - on_its_way and self._sent_again[0] <= now - 1:
            self._sent_again.append(now)
            self._history[slot] = (known, head, payload, now)
            await self._sender.transport._send_rtp(self._retransmission.wrap(head, payload))

    async def _report(self, packets: list[AnyRtcpPacket]) -> None:
        """A report pairs an RTP time with a wall-clock time. aiortc takes the time of sending, so that a late picture
        would shift the lips at the receiver; ours is the time at which the picture was due."""
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and self._timestamp is not None:
                told = packet.sender_info
                told.ntp_timestamp = round((self._epoch + self._timestamp / self._rate + NTP_EPOCH) * 2**32)
                told.rtp_timestamp = (self._origin + self._timestamp) & 0xFFFFFFFF
                told.packet_count, told.octet_count = self._packets & 0xFFFFFFFF, self._octets & 0xFFFFFFFF
                setattr(self._sender, LAST_REPORT, told.ntp_timestamp >> 16 & 0xFFFFFFFF)
                setattr(self._sender, LAST_REPORT_TIME, time.time())
        await self._send_rtcp(packets)


class _Header:
    """Packs RTP headers (RFC 3550, section 5.1): all but the sequence number, the times and the marker is made once."""

    def __init__(self, payload_type: int, sender: RTCRtpSender):
        extensions = getattr(sender, EXTENSIONS)
        _, placed = extensions.set(HeaderExtensions(abs_send_time=_PLACE))
        profile, values = extensions.set(HeaderExtensions(mid=getattr(sender, MID), abs_send_time=_PLACE))
        self._first = 0x90 if values else 0x80
        self._types = (payload_type, payload_type | 0x80)
        self._ssrc = sender._ssrc
        block = struct.pack("!HH", profile, len(values) // 4) + values if values else b""
        before, found, after = block.partition(_PLACE.to_bytes(3)) if placed else (block, b"", b"")
        self._before, self._after, self._timed = before, after, bool(found)
        self._common = b""

    def begin(self, timestamp: int) -> None:
        """The packets that follow belong to this time stamp and leave now."""
        self._common = struct.pack("!LL", timestamp, self._ssrc) + self._before
        if self._timed:
            sent = int((time.time() + NTP_EPOCH) * (1 << 18)) & 0xFFFFFF  # 6 bits of seconds, 18 of their fraction
            self._common += sent.to_bytes(3) + self._after

    def pack(self, sequence: int, *, marker: bool) -> bytes:
        return struct.pack("!BBH", self._first, self._types[marker], sequence) + self._common


class _Retransmission:
    """Packets that are sent again, on a stream of their own where the browser knows one (RTX, RFC 4588)."""

    def __init__(self, sender: RTCRtpSender):
        self._sender = sender
        self._sequence = secrets.randbelow(1 << 15)

    def wrap(self, head: bytes, payload: bytes) -> bytes:
        payload_type = getattr(self._sender, RTX_TYPE)
        if payload_type is None:
            return head + payload
        first, marked, original, timestamp, _ = struct.unpack_from("!BBHLL", head)
        self._sequence = (self._sequence + 1) & 0xFFFF
        again = struct.pack("!BBHLL", first, marked & 0x80 | payload_type, self._sequence, timestamp, self._sender._rtx_ssrc)
        return b"%b%b%b%b" % (again, head[12:], original.to_bytes(2), payload)


def negotiated_codec(transceiver: RTCRtpTransceiver) -> str:
    """The MIME type of the codec that both sides will use, such as "video/H264"."""
    return str(getattr(transceiver, NEGOTIATED_CODECS)[0].mimeType)


def unix_time_of(monotonic_time: float, monotonic: Callable[[], float] = time.monotonic) -> float:
    """A moment of the monotonic clock in Unix time."""
    return time.time() + monotonic_time - monotonic()
