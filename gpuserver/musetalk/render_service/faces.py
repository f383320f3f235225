"""A face on its way through the shared memory: as a job without an avatar, and as a crop that nobody has pasted yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import AvatarFrame, Box, Bytes2D, FaceCrop, LatentFace

_FACE = Box(0, 0, 256, 256)
_NO_PICTURE: Bytes2D = np.zeros((0, 0), np.uint8)
_NO_LANDMARKS = np.zeros((468, 2), np.float32)


def frame_of(latent: NDArray[np.float16]) -> AvatarFrame:
    """A frame of which nothing is known but what the network is told of it."""
    return AvatarFrame(0, _NO_PICTURE, _NO_LANDMARKS, _FACE, 0.0, LatentFace(latent, _FACE, _NO_PICTURE, _FACE))


def unpasted(picture: Bytes2D, _frame: AvatarFrame, _face: LatentFace) -> FaceCrop:
    """The painted picture as it is, uint8 [256, 256, 3], BGR, in the place of the luma; for an engine's `paste`."""
    return FaceCrop(_FACE, picture, _NO_PICTURE, _NO_PICTURE)
