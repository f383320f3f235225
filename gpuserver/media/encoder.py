"""The video encoder of a connection starts at a bit rate that keeps a mouth sharp; aiortc's own start (0.5 Mbit/s VP8) blurs it."""

from __future__ import annotations

from aiortc import RTCRtpTransceiver
from aiortc.codecs import get_encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder

START_BITRATE = 1_500_000  # bit/s: the most aiortc lets VP8 have; the browser's estimate (REMB) takes over from there

# aiortc has no public way to the encoder of a sender before its first frame, and a later change of its rate
# costs a key frame. test_aiortc_guard.py fails when these names are gone.
SENDER_ENCODER = "_RTCRtpSender__encoder"
NEGOTIATED_CODECS = "_codecs"


def raise_start_bitrate(transceiver: RTCRtpTransceiver) -> None:
    """Give the transceiver's sender its encoder, at START_BITRATE. To be called once its codecs are negotiated."""
    codecs = getattr(transceiver, NEGOTIATED_CODECS)
    encoder = get_encoder(codecs[0])
    if isinstance(encoder, Vp8Encoder | H264Encoder):
        encoder.target_bitrate = START_BITRATE
    setattr(transceiver.sender, SENDER_ENCODER, encoder)
