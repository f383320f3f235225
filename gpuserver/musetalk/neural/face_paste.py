"""Pastes a painted face: brings it to the size of the face box and mixes it into the source's planes by the avatar's mask."""

from __future__ import annotations

import numpy as np

from gpuserver.domain import AvatarFrame, Box, Bytes2D, FaceCrop, LatentFace
from gpuserver.musetalk.neural.blending import intersection, mix, window
from gpuserver.musetalk.rendering.compositor import planes


def paste(picture: Bytes2D, frame: AvatarFrame, face: LatentFace) -> FaceCrop:
    """The crop over the mask's box. picture: uint8 [256, 256, 3], BGR, what was painted for the frame.

    It is mixed in YUV, where a pixel that the mask leaves out stays the source's bit by bit; upstream mixes in BGR by the same
    8-bit rule. Colours change linearly from one to the other, so that both differ by rounding only.
    """
    import cv2

    sized = np.asarray(cv2.resize(picture, (face.box.width, face.box.height), interpolation=cv2.INTER_LINEAR), np.uint8)
    seen = cut(sized, face.box, face.mask_box)
    drawn = planes(np.asarray(cv2.cvtColor(seen, cv2.COLOR_BGR2YUV_I420), np.uint8))
    y, u, v = (
        mix(front, _window(back, face.mask_box, step), face.mask[::step, ::step])  # OpenCV takes a block's first pixel for its colour
        for front, back, step in zip(drawn, planes(frame.picture), (1, 2, 2), strict=True)
    )
    return FaceCrop(face.mask_box, y, u, v)


def cut(sized: Bytes2D, box: Box, wanted: Box) -> Bytes2D:
    """The part `wanted` [h, w, 3] of a picture that fills `box`; its border goes on where `wanted` leaves the box."""
    inside = intersection(wanted, box)
    part = sized[window(inside, box)]
    if inside == wanted:
        return np.ascontiguousarray(part)
    missing = ((inside.top - wanted.top, wanted.bottom - inside.bottom), (inside.left - wanted.left, wanted.right - inside.right), (0, 0))
    return np.pad(part, missing, mode="edge")


def _window(plane: Bytes2D, box: Box, step: int) -> Bytes2D:
    return plane[box.top // step : box.bottom // step, box.left // step : box.right // step]
