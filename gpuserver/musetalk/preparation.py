"""Turns a video into an avatar's folder. Runs as a child process with limits, because the video may be hostile:

    python -m gpuserver.musetalk.preparation '{"folder": …, "avatar_id": …}' < video

The open video is standard input; no path of it is known here. Standard output carries one JSON object per line: {"progress": [stage,
0..1]} any number of times, then {"result": AvatarInfo} or {"error": {slug, detail, advice}}. The parent's side is preparation_job.py.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict

from gpuserver.domain import FPS, Bytes2D
from gpuserver.errors import DiskFull, GpuserverError, VideoLimitExceeded
from gpuserver.musetalk import landmarks as points
from gpuserver.musetalk.avatar_files import AvatarWriter
from gpuserver.musetalk.quality import report, usable_run
from gpuserver.wire import AvatarId, AvatarInfo

if TYPE_CHECKING:
    from gpuserver.musetalk.face_track import FaceTrack
    from gpuserver.musetalk.faces import Face
    from gpuserver.musetalk.video import Video

Progress = Callable[[str, float], None]

_GIB = 1 << 30
_ADDRESS_SPACE = 6 * _GIB  # 4K video needs 1.5 GiB of it
_FILE_BYTES = 8 * _GIB  # 60 s of 1280x1280 are 3.7 GB
_CPU_SECONDS = 300  # 60 s of 4K video need 100
_OPEN_FILES = 128
_PROGRESS_SECONDS = 0.1  # between two lines
_JPEG_QUALITY = 88


class PreparationRequest(BaseModel):
    """What the parent wants. folder: empty, to be filled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    avatar_id: AvatarId
    tutor_id: str | None = None
    apply_blur: bool = False
    mock: bool = False


def prepare(request: PreparationRequest, file: BinaryIO, progress: Progress) -> AvatarInfo:
    """Read the video, follow the face, keep the longest usable part, write the folder.

    Raises Unreadable, VideoLimitExceeded, NoUsableFace; OSError of the disk passes through.
    """
    import cv2

    from gpuserver.musetalk.face_track import FaceTrack
    from gpuserver.musetalk.faces import FaceFinder
    from gpuserver.musetalk.video import Video

    still = file.read(8) == b"\x89PNG\r\n\x1a\n"
    file.seek(0)
    cv2.setNumThreads(1)  # the pictures are small: threads cost more than they save
    track = FaceTrack(FaceFinder())
    with Video(file, still=still) as video, AvatarWriter(request.folder) as writer:
        _watch(video, track, writer, progress)
        findings = track.judge(writer.width, writer.height)
        run = usable_run(findings, still=still)
        progress("writing", 0.0)
        writer.keep(run.start, run.stop)
        faces = track.faces(run)
        openings = np.array([points.mouth_opening(face.landmarks) for face in faces], np.float32)
        info = AvatarInfo(
            avatar_id=request.avatar_id,
            tutor_id=request.tutor_id,
            frames=run.length,
            width=writer.width,
            height=writer.height,
            seconds=run.length / FPS,
            created_at=datetime.now(UTC),
            apply_blur=request.apply_blur,
            mock=request.mock,
            quality=report(findings, run, faces, openings, cut_short=video.cut_short, apply_blur=request.apply_blur),
        )
        landmarks = np.stack([face.landmarks for face in faces])
        preview = _jpeg(writer.picture(_best_looking(faces, openings)))
        writer.finish(info, landmarks, [face.box for face in faces], openings, preview)
    progress("writing", 1.0)
    return info


def _watch(video: Video, track: FaceTrack, writer: AvatarWriter, progress: Progress) -> None:
    """Let every picture of the video go through the track and the writer."""
    import cv2

    expected = max(1.0, video.expected_seconds * FPS)
    last: Bytes2D | None = None
    for count, picture in enumerate(video.pictures(), start=1):
        if picture is last:
            track.see_again()
        else:
            track.see(np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8))
        writer.add(picture)
        last = picture
        progress("faces", min(1.0, count / expected))


def _best_looking(faces: list[Face], openings: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    """The frame that stands for the avatar: lips closed, looking into the camera."""
    turns = np.array([abs(points.turn(face.landmarks)) for face in faces])
    return int(np.argmin(openings + turns))


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


class _Lines:
    """The private end of standard output; anything else that prints goes to standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._spoken_at = -_PROGRESS_SECONDS

    def say(self, **line: object) -> None:
        self._pipe.write(json.dumps(line, ensure_ascii=True) + "\n")

    def progress(self, stage: str, part: float) -> None:
        now = time.monotonic()
        if now - self._spoken_at >= _PROGRESS_SECONDS or part in {0.0, 1.0}:
            self._spoken_at = now
            self.say(progress=[stage, round(part, 4)])


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
    lines = _Lines()
    try:
        request = PreparationRequest.model_validate_json(sys.argv[1])
        _limit_resources()
        info = prepare(request, sys.stdin.buffer, lines.progress)
    except (GpuserverError, MemoryError, OSError) as error:
        known = _known(error)
        if known is None:
            raise
        lines.say(error={"slug": known.slug, "detail": known.detail, "advice": known.advice})
        return 1
    lines.say(result=info.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
