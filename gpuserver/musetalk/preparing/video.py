"""Reads a video that may be hostile: upright I420 pictures at 25 fps, whatever is in the file. Runs in the preparation's child process.

No name of a file or URL reaches the demuxer: it gets an open file, may open nothing else, and knows a few formats only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from gpuserver.domain import FPS, Bytes2D
from gpuserver.errors import Unreadable, VideoLimitExceeded

VIDEO_FORMATS = "mov,mp4,m4a,matroska,webm,avi,gif"

# AVColorSpace (libavutil/pixfmt.h): what a file says about its YUV matrix.
_MATRICES = {
    1: Colorspace.ITU709,
    5: Colorspace.ITU601,  # BT.470 B/G
    6: Colorspace.ITU601,  # SMPTE 170M
    7: Colorspace.SMPTE240M,
    9: 9,  # BT.2020 non-constant luminance, SWS_CS_BT2020
    10: 9,
}
_HD_HEIGHT = 720  # an unmarked picture of this height or more is BT.709, as players take it
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted. A longer video than `used_seconds` is used from its beginning; one longer than `seconds` is refused."""

    pixels: int = 4096 * 2304
    fps: int = 240
    seconds: float = 600
    used_seconds: float = 60
    side: int = 1280  # pixels of the longer side; larger pictures are scaled down


class Video:
    """An open video. Iterate over pictures(); afterwards `cut_short` and `seconds` are known."""

    def __init__(self, file: BinaryIO, limits: Limits | None = None):
        """Raises Unreadable, VideoLimitExceeded."""
        self._limits = limits or Limits()
        self._container = open_container(file, VIDEO_FORMATS, self._limits.pixels)
        try:
            self._stream = _video_stream(self._container)
            self._refuse_by_header()
        except BaseException:
            self._container.close()
            raise
        self._size: tuple[int, int] | None = None
        self.seconds = 0.0  # as far as it was read
        self.cut_short = False

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def expected_seconds(self) -> float:
        """How much of the video will be used if the header tells the truth; for a progress bar."""
        return min(self._stated_seconds or self._limits.used_seconds, self._limits.used_seconds)

    @property
    def announced_pictures(self) -> int:
        """How many pictures() there will be if the header tells the truth; 0 if it says nothing."""
        return round(min(self._stated_seconds or 0.0, self._limits.used_seconds) * FPS)

    def pictures(self) -> Iterator[Bytes2D]:
        """Pictures uint8 [h * 3 / 2, w], I420, BT.601 limited range, at 25 fps by presentation time; all of one even size.

        A picture that is shown for longer than 40 ms is yielded again (the same object). Raises Unreadable, VideoLimitExceeded.
        """
        found = False
        for frame in at_25_fps(self._timed_frames()):
            found = True
            yield frame
        if not found:
            raise Unreadable("No picture of the video can be decoded.")

    def _timed_frames(self) -> Iterator[tuple[float, Bytes2D]]:
        """(seconds since the first picture, picture) in the order of decoding."""
        first: float | None = None
        previous = 0.0
        step = 1 / float(self._stream.average_rate or FPS)
        for number, frame in enumerate(self._decoded()):
            now = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else previous + step
            first = now if first is None else first
            if now - first >= self._limits.used_seconds:
                self.cut_short = True
                return
            if number > self._limits.fps * (now - first + 1):  # the rate in the header may be anything
                raise VideoLimitExceeded(f"The video has more than {self._limits.fps} pictures per second.")
            self.seconds = max(self.seconds, now - first + float((frame.duration or 0) * (frame.time_base or 0)))
            previous = now
            yield now - first, self._convert(frame)
        self._refuse_truncated()

    def _decoded(self) -> Iterator[VideoFrame]:
        """Decoded frames; single damaged packets are skipped."""
        packets = damaged = 0
        try:
            for packet in self._container.demux(self._stream):
                packets += 1
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
                    continue
                yield from (frame for frame in frames if isinstance(frame, VideoFrame) and not frame.is_corrupt)
        except av.error.FFmpegError as error:
            raise Unreadable(f"The video cannot be decoded: {error.strerror}.") from error
        if damaged > packets // 10:
            raise Unreadable(f"{damaged} of the video's {packets} packets are damaged.")

    def _convert(self, frame: VideoFrame) -> Bytes2D:
        if frame.width * frame.height > self._limits.pixels:
            raise VideoLimitExceeded(f"A picture of {frame.width}x{frame.height} has more than {self._limits.pixels} pixels.")
        turns = round(frame.rotation / 90) % 4
        if self._size is None:
            self._size = _output_size(frame, self._stream.sample_aspect_ratio, turns, self._limits.side)
        width, height = self._size if turns % 2 == 0 else self._size[::-1]
        return _turned(_to_i420(frame, width, height), turns)

    @property
    def _stated_seconds(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def _refuse_by_header(self) -> None:
        stated, codec = self._stated_seconds, self._stream.codec_context
        if stated is not None and stated > self._limits.seconds:
            raise VideoLimitExceeded(f"The video is {stated:.0f} s long; at most {self._limits.seconds:.0f} s are accepted.")
        if codec.width * codec.height > self._limits.pixels:
            raise VideoLimitExceeded(f"The picture of {codec.width}x{codec.height} has more than {self._limits.pixels} pixels.")

    def _refuse_truncated(self) -> None:
        """A file that ends long before the end of its own track has lost its tail."""
        stated = self._stated_seconds
        if self._stream.duration is None and len(self._container.streams) > 1:
            return  # the container's length may be that of the sound
        if stated is not None and self.seconds < stated - max(0.5, stated / 10):
            raise Unreadable(f"The video ends after {self.seconds:.1f} s of {stated:.1f} s: the file is not complete.")


def at_25_fps(timed: Iterable[tuple[float, Item]]) -> Iterator[Item]:
    """One item per 40 ms from items with their presentation times (seconds, the first is 0), without drift.

    Each item is put to the nearest tick; the last one at a tick wins, and a gap repeats what is shown. Times that go back are skipped.
    """
    shown: Item | None = None
    tick = 0  # of the item that is shown
    for seconds, item in timed:
        target = int(seconds * FPS + 0.5)
        if shown is None:
            shown, tick = item, max(0, target)
            continue
        if target < tick:
            continue
        for _ in range(target - tick):
            yield shown
        shown, tick = item, target
    if shown is not None:
        yield shown


def open_container(file: BinaryIO, formats: str, pixels: int) -> InputContainer:
    """The open file as a container of one of `formats`; nothing beside it can be reached. Raises Unreadable."""
    sandbox = {"format_whitelist": formats, "protocol_whitelist": "file", "enable_drefs": "0", "max_pixels": str(pixels)}
    try:
        return av.open(file, "r", container_options=sandbox, options={"max_pixels": str(pixels)}, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:  # an empty file is an OSError
        raise Unreadable("The file is not a video of a known format.") from error


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        # The cover of a piece of music is a video track, too.
        if not stream.disposition & stream.disposition.attached_pic:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = 2
            return stream
    raise Unreadable("The file has no video track." if container.streams.audio else "The file has neither picture nor sound.")


def _output_size(frame: VideoFrame, aspect: Fraction | None, turns: int, longest: int) -> tuple[int, int]:
    """Upright width and height: square pixels, even, the longer side at most `longest`."""
    shape = float(aspect) if aspect and Fraction(1, 4) < aspect < 4 else 1.0
    width, height = frame.width * shape, float(frame.height)
    scale = min(1.0, longest / max(width, height))
    width, height = (max(2, int(side * scale + 1e-6) // 2 * 2) for side in (width, height))
    return (width, height) if turns % 2 == 0 else (height, width)


def _to_i420(frame: VideoFrame, width: int, height: int) -> Bytes2D:
    """The stored (not yet turned) picture. A yuv420p picture that fits already keeps every bit."""
    is_rgb = frame.format.is_rgb
    unmarked = Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601
    matrix = Colorspace.ITU601 if is_rgb else _MATRICES.get(frame.colorspace, unmarked)
    full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") or is_rgb
    fits = (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p")
    if not (fits and matrix == Colorspace.ITU601 and not full):
        frame = frame.reformat(
            width,
            height,
            "yuv420p",
            src_colorspace=int(matrix),
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation="AREA" if frame.width > width else "BICUBIC",
        )
    return np.asarray(frame.to_ndarray(), np.uint8)


def _turned(picture: Bytes2D, turns: int) -> Bytes2D:
    """The I420 picture turned by `turns` quarters counter-clockwise, bit by bit."""
    if turns == 0:
        return picture
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    flat, luma = picture.reshape(-1), width * height
    planes = (
        flat[:luma].reshape(height, width),
        flat[luma : luma * 5 // 4].reshape(height // 2, width // 2),
        flat[luma * 5 // 4 :].reshape(height // 2, width // 2),
    )
    turned = np.concatenate([np.rot90(plane, turns).reshape(-1) for plane in planes])
    return turned.reshape(-1, width if turns == 2 else height)
