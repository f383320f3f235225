"""Prepares an avatar for MuseTalk. Runs as a child process, because torch and the GPU's driver belong into no process that serves:

    python -m gpuserver.musetalk.preparing.latent_preparation '{"avatar": …, "folder": …, "base": …, "preparation": {…}}'

What it reads are our own files, so that it needs no limits. Standard output is as that of preparation.py; the parent's side is
latent_job.py.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from gpuserver.domain import Avatar, AvatarFrame, Box, Bytes2D, LatentFace
from gpuserver.errors import DiskFull, GpuserverError, NoDevice
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.avatars.disk_room import MARGIN_BYTES, DiskRoom
from gpuserver.musetalk.avatars.latent_files import LatentWriter
from gpuserver.musetalk.neural.blending import crop, crop_box, window
from gpuserver.musetalk.neural.face_boxes import FACE_SIDE, mesh_boxes
from gpuserver.musetalk.neural.face_mask import landmark_classes, visible_mask
from gpuserver.musetalk.preparing.child_lines import Lines
from gpuserver.wire import MuseTalkPreparation

STAGE = "latents"

_BATCH = 8  # frames
_NICENESS = 10  # sessions that run on this machine come first

Faces = NDArray[np.uint8]
Encode = Callable[[Faces], NDArray[np.float16]]  # RGB [n, 256, 256, 3] -> [n, 8, 32, 32]
Parse = Callable[[Faces], Bytes2D]  # RGB [side, side, 3] -> classes [512, 512]


class LatentRequest(BaseModel):
    """What the parent wants. avatar: the folder to read; folder: empty, to be filled; base: MUSETALK_BASE.

    most_bytes: that the files may take; margin_bytes: stay free on the disk. device: of torch; None: the GPU, and an error without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    avatar: Path
    folder: Path
    base: Path
    preparation: MuseTalkPreparation
    device: str | None = None
    most_bytes: int | None = None
    margin_bytes: int = MARGIN_BYTES


def prepare_latents(
    request: LatentRequest, encode: Encode, parse: Parse | None, progress: Callable[[str, float], None]
) -> MuseTalkPreparation:
    """Fill request.folder. parse None: the landmarks say where the skin is. Raises AvatarNotFound, AvatarDamaged, DiskFull."""
    avatar = load_avatar(request.avatar)
    with LatentWriter(request.folder, DiskRoom(request.folder, request.most_bytes, margin=request.margin_bytes)) as writer:
        for count, face in enumerate(latent_faces(avatar, request.preparation, encode, parse), start=1):
            writer.add(face)
            progress(STAGE, count / len(avatar.frames))
        writer.finish(request.preparation)
    return request.preparation


def latent_faces(avatar: Avatar, how: MuseTalkPreparation, encode: Encode, parse: Parse | None = None) -> Iterator[LatentFace]:
    """What MuseTalk needs of every frame, in order."""
    landmarks = np.stack([frame.landmarks for frame in avatar.frames])
    faces = [frame.face for frame in avatar.frames]
    boxes = mesh_boxes(landmarks, faces, avatar.width, avatar.height, shift=how.bbox_shift, margin=how.extra_margin)
    for start in range(0, len(boxes), _BATCH):
        batch = list(zip(avatar.frames, boxes, strict=True))[start : start + _BATCH]
        pictures = [_rgb(frame.picture) for frame, _ in batch]
        latents = encode(np.stack([face_crop(picture, box) for picture, (_, box) in zip(pictures, batch, strict=True)]))
        for latent, picture, (frame, box) in zip(latents, pictures, batch, strict=True):
            mask, shown = _mask(picture, frame, box, how, parse)
            yield LatentFace(latent, box, mask, shown)


def face_crop(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The face as the VAE sees it: [256, 256, 3]."""
    import cv2

    return np.asarray(cv2.resize(picture[window(box)], (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_LANCZOS4), np.uint8)


def _mask(picture: NDArray[np.uint8], frame: AvatarFrame, box: Box, how: MuseTalkPreparation, parse: Parse | None) -> tuple[Bytes2D, Box]:
    """The mask and where it is. Where the parser finds no skin, the landmarks say where it is."""
    size = picture.shape[1], picture.shape[0]
    found = visible_mask(parse(crop(picture, crop_box(box))), box, how.mask, *size) if parse is not None else None
    found = found or visible_mask(landmark_classes(frame.landmarks, box), box, how.mask, *size)
    nothing = Box(box.left & ~1, box.top & ~1, (box.left & ~1) + 2, (box.top & ~1) + 2)
    return found or (np.zeros((2, 2), np.uint8), nothing)


def _rgb(picture: Bytes2D) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8)


def load_networks(request: LatentRequest) -> tuple[Encode, Parse | None]:
    """The VAE, and BiSeNet where it shall find the skin. Raises WeightsMissing, WeightsDamaged, NoDevice."""
    import torch

    from gpuserver.musetalk.preparing.face_encoder import FaceEncoder, FaceParser
    from gpuserver.musetalk.weight_files.weights import load_bisenet, load_vae, suitable_dtype

    if request.device is None and not torch.cuda.is_available():
        raise NoDevice("MuseTalk needs a GPU, and torch sees none.")
    device = request.device or "cuda"
    encode = FaceEncoder(load_vae(request.base, device, suitable_dtype(device, fast=True)))
    return encode, FaceParser(load_bisenet(request.base, device)) if request.preparation.parsing == "bisenet" else None


def main(load: Callable[[LatentRequest], tuple[Encode, Parse | None]] = load_networks) -> int:
    lines = Lines()
    try:
        request = LatentRequest.model_validate_json(sys.argv[1])
        os.nice(_NICENESS)
        lines.progress(STAGE, 0)
        encode, parse = load(request)
        made = prepare_latents(request, encode, parse, lines.progress)
    except ImportError as error:
        advice = "Install it with `pip install gpuserver[musetalk]`, or name a Python that has it with MUSETALK_CONDA_ENV."
        lines.fail(GpuserverError(f"MuseTalk needs {error.name}, which {sys.executable} does not have.", advice=advice))
        return 1
    except GpuserverError as error:
        lines.fail(error)
        return 1
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        lines.fail(DiskFull("The disk became full while the avatar was prepared for MuseTalk."))
        return 1
    lines.say(result=made.model_dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
