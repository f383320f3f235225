"""A small avatar on disk, made in a moment, and what stands in for the networks that prepare it for MuseTalk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from clips import Clip, artist
from numpy.typing import NDArray

from gpuserver.musetalk.avatars.avatar_files import AvatarWriter
from gpuserver.musetalk.preparing.latent_preparation import LatentRequest, prepare_latents
from gpuserver.musetalk.preparing.preparation_job import Watch
from gpuserver.musetalk.vision.faces import FaceFinder
from gpuserver.musetalk.vision.landmarks import mouth_opening
from gpuserver.musetalk.weight_files.model_files import Version, models_folder, needs_of
from gpuserver.wire import AvatarInfo, MuseTalkPreparation, QualityReport

JAW = MuseTalkPreparation(version="V1.5", mask="jaw", parsing="landmarks", bbox_shift=0, extra_margin=10)
QUALITY = QualityReport(source_frames=5, used_frames=5, frames_without_face=0, face_width=90, mouth_width=40, mouth_opening_at_rest=0.1)


def write_small_avatar(folder: Path, count: int = 5, avatar_id: str = "small") -> AvatarInfo:
    """A swaying head, 320x240."""
    clip, finder = Clip(), FaceFinder()
    pictures = [artist(clip)(index / 25) for index in range(count)]
    faces = [face for face in map(finder.find, pictures) if face is not None]
    info = AvatarInfo(
        avatar_id=avatar_id, frames=count, width=320, height=240, seconds=count / 25, created_at=datetime.now(UTC), quality=QUALITY
    )
    with AvatarWriter(folder) as writer:
        for picture in pictures:
            writer.add(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8))
        landmarks = np.stack([face.landmarks for face in faces])
        openings = np.array([mouth_opening(face.landmarks) for face in faces], np.float32)
        writer.finish(info, landmarks, [face.box for face in faces], openings, b"\xff\xd8\xff")
    return info


def fake_encode(faces: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The mean level of every face, 0..1, in all of its latents."""
    means = faces.reshape(len(faces), -1).mean(axis=1) / 255
    return np.broadcast_to(means[:, None, None, None], (len(faces), 8, 32, 32)).astype(np.float16)


def prepared_at_once(request: LatentRequest, frames: int, watch: Watch | None = None, **_: object) -> MuseTalkPreparation:
    """In the place of latent_job.run_latent_preparation: no child process, fake_encode for the VAE."""
    told = watch.progress if watch is not None and watch.progress is not None else lambda stage, part: None
    return prepare_latents(request, fake_encode, None, told)


def weights_in(base: Path, version: Version = Version.V15, *, bisenet: bool = False) -> Path:
    """Empty files in the places of the official ones; enough for those who only look whether they are there."""
    for need in needs_of(version, optional=bisenet):
        path = models_folder(base) / need.choices[0].path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return base
