"""What becomes an avatar: the pictures and faces of a video's best part, or of a still picture that was given life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import FPS, Box, Bytes2D, Floats
from gpuserver.musetalk.avatars.avatar_files import AvatarWriter
from gpuserver.musetalk.preparing.life import FRAMES, living
from gpuserver.musetalk.preparing.quality import report, usable_run
from gpuserver.musetalk.preparing.still import read_still, to_i420
from gpuserver.musetalk.preparing.video import Video
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.background import BackgroundBlur, Silhouette, silhouette, steady_mask
from gpuserver.musetalk.vision.face_track import FaceTrack
from gpuserver.musetalk.vision.faces import Face, FaceFinder
from gpuserver.musetalk.vision.person import PersonFinder
from gpuserver.wire import QualityReport

_BLINKING = 0.8  # of the usual height of the eyes

Progress = Callable[[str, float], None]  # the stage, and how far it is: 0..1
Analysed = Callable[[QualityReport], None]


@dataclass(frozen=True, slots=True)
class Footage:
    """The faces of the pictures that lie in the writer, one by one, and what a teacher should know. preview: the best-looking one."""

    faces: list[Face]
    quality: QualityReport
    preview: int


def video_footage(file: BinaryIO, writer: AvatarWriter, blur: bool, progress: Progress, analysed: Analysed) -> Footage:
    """Read the video, follow the face, keep the longest usable part. Raises Unreadable, VideoLimitExceeded, NoUsableFace, DiskFull."""
    track = FaceTrack(FaceFinder())
    with Video(file) as video:
        _watch(video, track, writer, progress)
        cut_short = video.cut_short
    findings = track.judge(writer.width, writer.height)
    run = usable_run(findings, track.seen(), still=False)
    faces = track.faces(run)
    quality = report(findings, run, faces, cut_short=cut_short)
    analysed(quality)
    writer.keep(run.start, run.stop)
    if blur:
        _blur(writer, faces, progress)
    return Footage(faces, quality, _best_looking(faces))


def still_footage(file: BinaryIO, writer: AvatarWriter, blur: bool, progress: Progress, analysed: Analysed) -> Footage:
    """Read the picture and give it life. Raises Unreadable, VideoLimitExceeded, NoUsableFace, DiskFull."""
    rgb = read_still(file)
    height, width = rgb.shape[:2]
    track = FaceTrack(FaceFinder())
    track.see(rgb)
    findings = track.judge(width, height)
    run = usable_run(findings, track.seen(), still=True)
    (face,) = track.faces(run)
    quality = report(findings, run, [face])
    analysed(quality)
    person = PersonFinder()
    if blur:
        seen = silhouette(person, rgb)
        behind = BackgroundBlur(width, height, face.box.width)
        rgb = _rgb(behind.picture(to_i420(rgb), steady_mask([seen], 0), face.landmarks))
    faces = []
    writer.expect(FRAMES, to_i420(rgb))
    for picture, landmarks in living(rgb, face.landmarks, person.find(rgb)):
        writer.add(picture)
        faces.append(replace(face, landmarks=landmarks, box=_moved(face.box, landmarks - face.landmarks, width, height)))
        progress("life", len(faces) / FRAMES)
    return Footage(faces, quality.model_copy(update={"used_frames": len(faces)}), preview=0)


def _watch(video: Video, track: FaceTrack, writer: AvatarWriter, progress: Progress) -> None:
    """Let every picture of the video go through the track and the writer."""
    expected = max(1.0, video.expected_seconds * FPS)
    last: Bytes2D | None = None
    for count, picture in enumerate(video.pictures(), start=1):
        if last is None:
            writer.expect(video.announced_pictures, picture)  # a disk that cannot hold them is not filled first
        if picture is last:
            track.see_again()
        else:
            track.see(_rgb(picture))
        writer.add(picture)
        last = picture
        progress("faces", min(1.0, count / expected))


def _blur(writer: AvatarWriter, faces: list[Face], progress: Progress) -> None:
    """Blur the background of all pictures in the writer. First the person is found in all of them, then each is changed in its place."""
    person = PersonFinder()
    behind = BackgroundBlur(writer.width, writer.height, float(np.median([face.box.width for face in faces])))
    seen: list[Silhouette] = []
    for index in range(len(faces)):
        seen.append(silhouette(person, _rgb(writer.picture(index))))
        progress("background", len(seen) / (2 * len(faces)))
    for index, face in enumerate(faces):
        writer.change(index, behind.picture(writer.picture(index), steady_mask(seen, index), face.landmarks))
        progress("background", (len(faces) + index + 1) / (2 * len(faces)))


def _best_looking(faces: list[Face]) -> int:
    """The frame that stands for the avatar: lips closed, eyes open, looking into the camera."""
    eyes = np.array([points.eye_opening(face.landmarks) for face in faces])
    blinking = eyes < _BLINKING * np.median(eyes)
    turns = np.array([abs(points.turn(face.landmarks)) for face in faces])
    openings = np.array([points.mouth_opening(face.landmarks) for face in faces])
    return int(np.argmin(openings + turns + blinking))


def _moved(box: Box, displacements: Floats, width: int, height: int) -> Box:
    x, y = np.rint(displacements.mean(axis=0)).astype(int)
    return Box(max(0, box.left + int(x)), max(0, box.top + int(y)), min(width, box.right + int(x)), min(height, box.bottom + int(y)))


def _rgb(picture: Bytes2D) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8)
