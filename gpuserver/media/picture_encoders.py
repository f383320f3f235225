"""Encodes pictures: H264 where the browser offers it, else VP8. Blocking; called in worker threads."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, cast

from av import VideoCodecContext, VideoFrame
from av.video.frame import PictureType

from gpuserver.domain import FPS, Bytes2D
from gpuserver.media.payloads import H264, VP8, Payloads, payloads_of

CODECS = (H264, VP8)  # in order of preference; x264 needs half of libvpx's time for the same picture

KEY_EVERY = 60 * FPS  # of a live stream: key frames come when they are asked for
BUFFER_SECONDS = 1.0  # how far a key frame may overdraw the bit rate; with less the first picture of speech is visibly softer than the loop

# x264's aim where bits are plenty. PSNR on four faces at 512x512 and smaller: 44 to 50 dB at 0.2 to 1.1 Mbit/s; stock aiortc's VP8:
# 41 to 45 dB at 0.6 to 1.5 (bench/media.py).
LIVE_QUALITY = 23
IDLE_QUALITY = 24
LOOP_BITRATE = 1_000_000  # bit/s; without a limit the key frames of a still picture are 100 kB each
# bit/s, which x264 overdraws by a second's worth: the busiest three seconds stay below the highest step of bitrate.LADDER. A loop that
# needs more is joined by nobody, and whoever idles with it is encoded for.
X264_LOOP_BITRATE = 1_100_000
# Without variance-based quantisation faces take a fifth fewer bits at the same PSNR; the diamond search is enough for a sitting person.
X264_LIVE = "aq-mode=0:me=dia"
# Every packet of the loop goes to every idle session: time spent on it once is saved many times. As good as live, two thirds of its bits.
X264_LOOP = "aq-mode=0:no-psy=1"


class PictureEncoder(Protocol):
    """A stream of pictures of one size. Its first picture is a key frame."""

    def encode(self, picture: Bytes2D, *, key: bool) -> Payloads:
        """One picture, ready for RTP. picture: uint8 [height * 3 / 2, width], I420. key: make it a key frame."""
        ...


class _Encoder:
    def __init__(self, mime_type: str, context: VideoCodecContext):
        self._mime_type = mime_type
        self._context = context
        self._frames = 0

    def encode(self, picture: Bytes2D, *, key: bool) -> Payloads:
        frame = VideoFrame.from_numpy_buffer(picture, format="yuv420p")  # no copy: the encoder is done with it when it returns
        frame.pts = self._frames
        frame.time_base = self._context.time_base
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._frames += 1
        return payloads_of(self._mime_type, b"".join(map(bytes, self._context.encode(frame))))


def live_encoder(mime_type: str, width: int, height: int, bitrate: int) -> PictureEncoder:
    """For pictures as they come, without delay, on one thread. bitrate: bit/s that are not exceeded for long."""
    if mime_type == H264:
        return _x264(
            width, height, KEY_EVERY, {"preset": "superfast", "crf": str(LIVE_QUALITY), "x264-params": X264_LIVE, **_limit(bitrate)}
        )
    context = _context("libvpx", width, height, KEY_EVERY)
    context.bit_rate = bitrate
    context.qmin, context.qmax = 2, 56
    context.options = {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "noise-sensitivity": "0",  # noise reduction costs a third more time and 5 dB
        "static-thresh": "1",
        "overshoot-pct": "15",
        "undershoot-pct": "100",
        "minrate": str(bitrate),  # equal to maxrate: a constant rate
        **_limit(bitrate),
    }
    return _Encoder(VP8, context)


def loop_encoder(mime_type: str, width: int, height: int, key_every: int) -> PictureEncoder:
    """For a loop that is encoded once and sent often: good quality, a key frame every `key_every` pictures and nowhere else."""
    if mime_type == H264:
        return _x264(
            width,
            height,
            key_every,
            {
                "preset": "medium",
                "crf": str(IDLE_QUALITY),
                "x264-params": X264_LOOP,
                "keyint_min": str(key_every),
                **_limit(X264_LOOP_BITRATE),
            },
        )
    context = _context("libvpx", width, height, key_every)
    context.bit_rate = LOOP_BITRATE  # an upper limit; crf decides
    context.options = {"deadline": "realtime", "cpu-used": "-4", "lag-in-frames": "0", "crf": "10", "keyint_min": str(key_every)}
    return _Encoder(VP8, context)


def _x264(width: int, height: int, key_every: int, options: dict[str, str]) -> PictureEncoder:
    context = _context("libx264", width, height, key_every)
    context.profile = "Baseline"  # what every browser decodes, and what the answer promises
    context.options = {"tune": "zerolatency", "sc_threshold": "0", **options}  # no key frames where the picture changes much
    return _Encoder(H264, context)


def _context(codec: str, width: int, height: int, key_every: int) -> VideoCodecContext:
    context = cast(VideoCodecContext, VideoCodecContext.create(codec, "w"))
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.framerate = Fraction(FPS)
    context.time_base = Fraction(1, FPS)
    context.gop_size = key_every
    context.thread_count = 1  # sessions run beside each other, not one of them on all cores
    return context


def _limit(bitrate: int) -> dict[str, str]:
    return {"maxrate": str(bitrate), "bufsize": str(round(bitrate * BUFFER_SECONDS))}
