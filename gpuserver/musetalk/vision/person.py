"""Finds the person in a picture: for every part of it, how surely it shows a person and not what is behind.

The model is MediaPipe's selfie segmentation (assets/LICENSE.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Floats
from gpuserver.musetalk.vision.litert import Network

SEGMENTATION = Path(__file__).parents[1] / "assets" / "selfie_segmentation.tflite"
SIDE = 256  # pixels of the mask, whatever the picture's shape


class PersonFinder:
    """Holds the network. One instance per thread."""

    def __init__(self) -> None:
        self._network = Network(SEGMENTATION)

    def find(self, rgb: NDArray[np.uint8]) -> Floats:
        """float32 [256, 256], 0 behind the person … 1 the person, of the picture [h, w, 3] stretched to a square."""
        import cv2

        small = rgb if rgb.shape[:2] == (SIDE, SIDE) else cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return self._network(np.asarray(small[None] / np.float32(255), np.float32))[0].reshape(SIDE, SIDE)
