"""What a browser would see of the same pictures, from our encoder and from those of stock aiortc, at the same limit of bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from aiortc.codecs.h264 import H264Encoder, h264_depayload
from aiortc.codecs.vpx import Vp8Encoder, vp8_depayload
from av import CodecContext, Packet, VideoCodecContext, VideoFrame

from gpuserver.domain import FPS, Bytes2D
from gpuserver.media.payloads import H264, VP8
from gpuserver.media.picture_encoders import live_encoder

Encode = Callable[[Bytes2D], Sequence[bytes]]  # a picture -> its RTP payloads
LOW_DELAY = 0x80000  # a decoder flag: give each picture out at once


@dataclass(frozen=True, slots=True)
class Quality:
    """psnr: dB, luma, mean over the pictures. kilobits: per second."""

    psnr: float
    kilobits: float


def ours(mime_type: str, width: int, height: int, bitrate: int) -> Encode:
    encoder = live_encoder(mime_type, width, height, bitrate)
    return lambda picture: encoder.encode(picture, key=False)


def stock(mime_type: str, bitrate: int) -> Encode:
    """aiortc's own encoder, told the same bit rate."""
    encoder = H264Encoder() if mime_type == H264 else Vp8Encoder()
    encoder.target_bitrate = bitrate
    count = 0

    def encode(picture: Bytes2D) -> Sequence[bytes]:
        nonlocal count
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = count * 90_000 // FPS, Fraction(1, 90_000)
        count += 1
        return encoder.encode(frame)[0]

    return encode


def measure(encode: Encode, mime_type: str, pictures: Sequence[Bytes2D]) -> Quality:
    """Encode and decode the pictures, one after the other."""
    decoder = VideoCodecContext.create("libvpx" if mime_type == VP8 else "h264", "r")
    assert isinstance(decoder, CodecContext)
    decoder.flags = decoder.flags | LOW_DELAY
    depayload = vp8_depayload if mime_type == VP8 else h264_depayload
    found: list[float] = []
    size = 0
    for picture in pictures:
        payloads = encode(picture)
        size += sum(map(len, payloads))
        shown = decoder.decode(Packet(b"".join(map(depayload, payloads))))
        found += [psnr(np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8), picture) for frame in shown]
    return Quality(float(np.mean(found)), size * 8 * FPS / len(pictures) / 1000)


def psnr(picture: Bytes2D, original: Bytes2D) -> float:
    """dB between the luma of two I420 pictures."""
    rows = original.shape[0] * 2 // 3
    difference = picture[:rows].astype(np.int32) - original[:rows]
    return 10 * float(np.log10(255**2 / max(1e-9, np.mean(difference**2))))
