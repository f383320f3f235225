"""The idle loop of an avatar as a film: H.264 in MP4, once forth and back, so that a player repeats it without a jump.

    python -m gpuserver.musetalk.preparing.idle_film AVATAR_FOLDER FILM

runs as a child process, because encoding takes seconds and the libraries that encode stay out of the management API.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gpuserver.domain import FPS, Avatar, Bytes2D, loop_index

NO_ROOM = os.EX_IOERR  # the exit code when the disk is full
_KEYFRAME_EVERY = FPS  # a player may jump to any second
_OPTIONS = {"preset": "veryfast", "crf": "21"}


def write_film(avatar: Avatar, path: Path) -> None:
    """Write the film, complete or not at all. OSError (a full disk) passes through."""
    import av

    part = part_of(path)
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=FPS, options=dict(_OPTIONS))
            stream.width, stream.height, stream.pix_fmt = avatar.width, avatar.height, "yuv420p"
            stream.gop_size = _KEYFRAME_EVERY
            stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
            stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601
            for picture in _loop(avatar):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
            container.mux(stream.encode(None))
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def part_of(film: Path) -> Path:
    """The file that becomes the film when it is complete."""
    return film.with_suffix(".part")


def _loop(avatar: Avatar) -> Iterator[Bytes2D]:
    """Every picture of one turn of the loop; a second of a single one."""
    count = len(avatar.frames)
    for position in range(2 * count - 2 if count > 1 else FPS):
        yield avatar.frames[loop_index(position, count)].picture


def main() -> int:
    from gpuserver.musetalk.avatars.avatar_files import load_avatar

    folder, path = sys.argv[1:]
    os.nice(5)  # whoever talks right now goes first
    try:
        write_film(load_avatar(Path(folder)), Path(path))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return NO_ROOM
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
