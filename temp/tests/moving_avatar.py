"""An avatar whose pictures tell where its loop is."""

from __future__ import annotations

import numpy as np

from gpuserver.domain import Avatar, AvatarFrame, Box


def moving_avatar(width: int = 128, height: int = 96, frames: int = 50) -> Avatar:
    """A bright bar that moves from left to right, 2 pixels per frame."""
    made = []
    for index in range(frames):
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        picture[:height] = 40
        picture[:height, 2 * index : 2 * index + 20] = 220
        made.append(AvatarFrame(index, picture, np.zeros((468, 2), np.float32), Box(0, 0, width, height), 0.0))
    return Avatar("moving", width, height, made)
