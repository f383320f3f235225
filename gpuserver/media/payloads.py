"""Cuts an encoded picture into RTP payloads: H264 as in RFC 6184, VP8 as in RFC 7741. Done once, however many sessions it is sent to."""

from __future__ import annotations

from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE
from av import Packet

H264 = "video/H264"
VP8 = "video/VP8"
VP8_BYTES = 1299  # with the descriptor as much as aiortc puts into a packet
FIRST, FURTHER = b"\x10", b"\x00"  # VP8 descriptors without a picture id, which would differ from session to session

Payloads = tuple[bytes, ...]


def payloads_of(mime_type: str, data: bytes) -> Payloads:
    """data: one picture, H264 in Annex B format, or VP8."""
    if mime_type == VP8:
        return tuple((FURTHER if start else FIRST) + data[start : start + VP8_BYTES] for start in range(0, len(data), VP8_BYTES))
    packet = Packet(data)
    packet.pts, packet.time_base = 0, VIDEO_TIME_BASE
    return tuple(H264Encoder().pack(packet)[0])
