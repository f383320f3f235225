"""Turns a video or a still picture into an avatar's folder. Runs as a child process with limits, because the video may be hostile:

    python -m gpuserver.musetalk.preparing.preparation '{"folder": …, "avatar_id": …}' < video

The open file is standard input; no path of it is known here. Standard output carries one JSON object per line: {"progress": [stage,
0..1]} any number of times, {"analysed": QualityReport} once, then {"result": AvatarInfo} or {"error": {slug, detail, advice, extra}}.
The parent's side is preparation_job.py.
"""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict

from gpuserver.domain import FPS, Bytes2D
from gpuserver.errors import DiskFull, GpuserverError, VideoLimitExceeded
from gpuserver.musetalk.avatars.avatar_files import AvatarWriter
from gpuserver.musetalk.avatars.disk_room import MARGIN_BYTES, DiskRoom
from gpuserver.musetalk.preparing.child_lines import Lines
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.wire import AvatarId, AvatarInfo, QualityReport

Progress = Callable[[str, float], None]
Analysed = Callable[[QualityReport], None]

_GIB = 1 << 30
_ADDRESS_SPACE = 6 * _GIB  # 4K video needs 1.5 GiB of it
_FILE_BYTES = 8 * _GIB  # 60 s of 1280x1280 are 3.7 GB
_CPU_SECONDS = 300  # 60 s of 4K video need 100
_OPEN_FILES = 128
_JPEG_QUALITY = 88
_WRITING = 0.1  # of the whole: making everything durable


class PreparationRequest(BaseModel):
    """What the parent wants. folder: empty, to be filled. most_bytes: that the pictures may take; margin_bytes: stay free on the disk.

    ffmpeg: the program that is tried where PyAV cannot read the video; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    avatar_id: AvatarId
    tutor_id: str | None = None
    apply_blur: bool = False
    mock: bool = False
    most_bytes: int | None = None
    margin_bytes: int = MARGIN_BYTES
    ffmpeg: str | None = None


def prepare(request: PreparationRequest, file: BinaryIO, progress: Progress, analysed: Analysed) -> AvatarInfo:
    """Turn the video or still picture into the avatar's folder. progress: told the part of the whole; analysed: the report, early.

    Raises Unreadable, VideoLimitExceeded, NoUsableFace, DiskFull; OSError of the disk passes through.
    """
    import cv2

    from gpuserver.musetalk.preparing.footage import still_footage, video_footage
    from gpuserver.musetalk.preparing.still import is_still
    from gpuserver.musetalk.preparing.transcoding import readable

    cv2.setNumThreads(1)  # the pictures are small: threads cost more than they save
    still = is_still(file)
    if not still:
        file = readable(file, request.ffmpeg, request.folder)
    stages = Stages(progress, ("life",) if still else ("faces", "background") if request.apply_blur else ("faces",))
    room = DiskRoom(request.folder, request.most_bytes, margin=request.margin_bytes)
    with AvatarWriter(request.folder, room) as writer:
        shoot = still_footage if still else video_footage
        footage = shoot(file, writer, request.apply_blur, stages.tell, analysed)
        stages.tell("writing", 0.0)
        faces = footage.faces
        openings = np.array([points.mouth_opening(face.landmarks) for face in faces], np.float32)
        info = AvatarInfo(
            avatar_id=request.avatar_id,
            tutor_id=request.tutor_id,
            frames=len(faces),
            width=writer.width,
            height=writer.height,
            seconds=len(faces) / FPS,
            created_at=datetime.now(UTC),
            apply_blur=request.apply_blur,
            mock=request.mock,
            quality=footage.quality,
        )
        landmarks = np.stack([face.landmarks for face in faces])
        preview = _jpeg(writer.picture(footage.preview))
        writer.finish(info, landmarks, [face.box for face in faces], openings, preview)
    stages.tell("writing", 1.0)
    return info


class Stages:
    """Makes one progress out of that of the stages. Writing is the last of them and takes little."""

    def __init__(self, progress: Progress, names: tuple[str, ...]):
        self._progress = progress
        share = (1 - _WRITING) / len(names)
        self._spans = {name: (index * share, share) for index, name in enumerate(names)} | {"writing": (1 - _WRITING, _WRITING)}

    def tell(self, stage: str, part: float) -> None:
        """The stage has come so far: 0..1."""
        start, share = self._spans[stage]
        self._progress(stage, start + share * part)


def _jpeg(picture: Bytes2D) -> bytes:
    import cv2

    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_YUV2BGR_I420), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def _limit_resources() -> None:
    """What a hostile video can take at most. A limit is never raised above the one that is set already."""
    limits = (
        (resource.RLIMIT_AS, _ADDRESS_SPACE),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    )
    for which, wanted in limits:
        _, hard = resource.getrlimit(which)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (allowed, allowed))


def _known(error: BaseException) -> GpuserverError | None:
    """The error in the words of our own tree; None if it is a defect of ours."""
    if isinstance(error, GpuserverError):
        return error
    if isinstance(error, MemoryError):
        return VideoLimitExceeded("The video needs more memory than is granted to one.")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull("The disk became full while the avatar was written.")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return VideoLimitExceeded("The avatar's pictures take more room than is granted to one.")
    return None


def main() -> int:
    lines = Lines()
    try:
        request = PreparationRequest.model_validate_json(sys.argv[1])
        _limit_resources()
        info = prepare(request, sys.stdin.buffer, lines.progress, lambda report: lines.say(analysed=report.model_dump()))
    except (GpuserverError, MemoryError, OSError) as error:
        known = _known(error)
        if known is None:
            raise
        lines.fail(known)
        return 1
    lines.say(result=info.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
