"""A video that PyAV cannot read is made readable by this machine's ffmpeg, if it has one. Runs in the preparation's limited child."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

from gpuserver.errors import Unreadable
from gpuserver.musetalk.preparing.video import VIDEO_FORMATS, Limits, Video

# What telephones, cameras and screen recorders write beside the formats that PyAV is allowed. No playlist: those open further files.
MORE_FORMATS = f"{VIDEO_FORMATS},asf,flv,mpeg,mpegts,mpegvideo,mxf,nut,ogg,rm,wtv,ivf,h264,hevc"
_STANDARD_INPUT, _STANDARD_OUTPUT = "/dev/stdin", "/dev/stdout"  # as files, not pipes, so that ffmpeg can seek in them


def readable(file: BinaryIO, ffmpeg: str | None, folder: Path, limits: Limits | None = None) -> BinaryIO:
    """The file itself if a picture of it can be decoded, else what ffmpeg makes of it. ffmpeg: its path, None if there is none.

    Raises Unreadable, with PyAV's reason, where ffmpeg cannot read it either; VideoLimitExceeded. folder: on the disk that has room.
    """
    limits = limits or Limits()
    try:
        _decode_one(file, limits)
    except Unreadable:
        if ffmpeg is None:
            raise
        converted = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the preparation, and has no name
        if not _convert(file, ffmpeg, converted, limits):
            converted.close()
            raise
        return converted
    finally:
        file.seek(0)
    return file


def _decode_one(file: BinaryIO, limits: Limits) -> None:
    with Video(file, limits) as video:
        next(iter(video.pictures()))


def _convert(file: BinaryIO, ffmpeg: str, target: BinaryIO, limits: Limits) -> bool:
    """Whether ffmpeg found a video in the file. It inherits this process's limits and opens nothing but the file that it is given."""
    file.seek(0)
    side = limits.side
    command = [
        *(ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", MORE_FORMATS),
        *("-max_pixels", str(limits.pixels)),
        *("-i", _STANDARD_INPUT, "-map", "0:v:0", "-t", str(limits.used_seconds + 1), "-an", "-sn", "-dn"),
        *("-vf", f"scale='min({side},iw)':'min({side},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2,format=yuv420p"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-f", "matroska", "-y", _STANDARD_OUTPUT),
    ]
    ended = subprocess.run(  # noqa: S603 - our own arguments, no shell, no name from outside
        command, stdin=file.fileno(), stdout=target.fileno(), stderr=subprocess.DEVNULL, env={"PATH": os.defpath}, check=False
    )
    target.seek(0, os.SEEK_END)
    found = target.tell() > 0
    target.seek(0)
    return ended.returncode == 0 and found
