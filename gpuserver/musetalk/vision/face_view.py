"""How well a picture shows its face: light, sharpness, company. Looked at now and then, not in every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuserver.musetalk.vision.faces import Face, FaceFinder

_SIDE = 128  # pixels: sharper than a viewer sees does not count
_GRAIN = 0.8  # pixels of blur against the camera's noise, which looks like sharpness


@dataclass(frozen=True, slots=True)
class FaceView:
    """brightness: mean grey level of the face, 0..255. sharpness: see below. others: further faces of similar size.

    sharpness is the variance of the Laplacian over the variance of the face at 128 pixels: independent of light and size. Measured:
    0.025 to 0.06 for portraits and webcams; 0.004 to 0.011 for the same, blurred by 2% of the face's width.
    """

    brightness: float
    sharpness: float
    others: int
    upside_down: bool


def face_view(finder: FaceFinder, rgb: NDArray[np.uint8], face: Face) -> FaceView:
    """rgb: [h, w, 3]."""
    import cv2

    box = face.box
    grey = cv2.cvtColor(rgb[box.top : box.bottom, box.left : box.right], cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(grey, (0, 0), _GRAIN).astype(np.float32)
    sharpness = cv2.Laplacian(smooth, cv2.CV_32F).var() / max(float(smooth.var()), 1.0)
    return FaceView(float(grey.mean()), float(sharpness), finder.others(rgb, face), finder.is_upside_down(rgb))
