"""Draws the skin around the mouth where its fields move it: the picture's own pixels, taken from elsewhere."""

from __future__ import annotations

import cv2
import numpy as np

from gpuserver.domain import AvatarFrame, Box, Bytes2D, Floats
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry
from gpuserver.musetalk.warp.mouth_light import planes

CRISP_WIDTH = 160  # pixels: up to this mouth width luma is interpolated cubically; pores of larger ones bear a linear one
COARSE_WIDTH = 80  # pixels: from here on a pixel is less than half a cell of the grid, and every second one is enough
_FROM_GRID = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class SkinMover:
    """Keeps its working memory from frame to frame, as fresh pages cost more than the arithmetic on them. For one thread."""

    def __init__(self) -> None:
        self._memory: dict[str, Floats] = {}

    def move(self, frame: AvatarFrame, mouth: MouthGeometry, fields: MouthFields) -> tuple[Bytes2D, Bytes2D, Bytes2D]:
        """The three planes of the mouth's box with the skin moved: uint8 [h, w], [h / 2, w / 2] twice."""
        box = mouth.box
        displacement = self._displacement(mouth, fields)
        half = self._room("half", 2, box.height // 2, box.width // 2)
        np.multiply(displacement[:, ::2, ::2], np.float32(0.5), out=half)
        crisp = cv2.INTER_CUBIC if mouth.unit <= CRISP_WIDTH else cv2.INTER_LINEAR
        y, u, v = planes(frame)
        chroma = (slice(box.top // 2, box.bottom // 2), slice(box.left // 2, box.right // 2))
        return (
            _moved(y[box.top : box.bottom, box.left : box.right], displacement, crisp),
            _moved(u[chroma], half, cv2.INTER_LINEAR),
            _moved(v[chroma], half, cv2.INTER_LINEAR),
        )

    def _displacement(self, mouth: MouthGeometry, fields: MouthFields) -> Floats:
        """Where each pixel of the mouth's box comes from: float32 [2, h, w], pixels to the right and down of itself.

        The two layers meet at the lip line. Choosing between them on the grid blurs them into each other over one cell, so
        around the line each pixel chooses for itself.
        """
        box, step = mouth.box, 2 if mouth.unit >= COARSE_WIDTH else 1
        size = (box.height // step, box.width // step)
        enlarged = _enlarged(_chosen(mouth, fields.backward), mouth, box, step, self._room("enlarged", *size, 4))
        displacement = coarse = self._room("coarse", 2, *size)
        coarse[...] = enlarged[..., 0], enlarged[..., 1]
        if step > 1:
            displacement = self._room("displacement", 2, box.height, box.width)
            for finer, coarser in zip(displacement, coarse, strict=True):
                cv2.resize(coarser, (box.width, box.height), dst=finer)
        band = _lip_band(mouth, fields)
        if band is not None:
            top, left = band.top - box.top, band.left - box.left
            room = self._room("band", band.height, band.width, 4)
            around = _chosen(mouth, _enlarged(fields.backward, mouth, band, 1, room))
            displacement[:, top : top + band.height, left : left + band.width] = around[..., 0], around[..., 1]
        return displacement

    def _room(self, name: str, *shape: int) -> Floats:
        """An array to write into; its values are left over."""
        size = int(np.prod(shape))
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.float32)
        return memory[:size].reshape(shape)


def _moved(plane: Bytes2D, displacement: Floats, interpolation: int) -> Bytes2D:
    right, down = displacement
    moved = cv2.remap(plane, right, down, interpolation | cv2.WARP_RELATIVE_MAP, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _chosen(mouth: MouthGeometry, backward: Floats) -> Floats:
    """The displacement of each point's own layer, in pixels; four channels, of which OpenCV enlarges two slower than all four."""
    dy = np.where(backward[..., 3] < 0, backward[..., 1], backward[..., 2])
    chosen = np.zeros_like(backward)
    for axis in (0, 1):
        chosen[..., axis] = backward[..., 0] * (np.float32(mouth.unit) * mouth.across[axis])
        chosen[..., axis] += dy * (np.float32(mouth.unit) * mouth.down[axis])
    return chosen


def _enlarged(field: Floats, mouth: MouthGeometry, box: Box, step: int, room: Floats) -> Floats:
    """A field of the mouth's grid at every `step`-th pixel of a box, written into `room`; 0 beyond the grid."""
    affine = mouth.box_to_grid(box, step)
    cv2.warpAffine(field, affine, room.shape[1::-1], dst=room, flags=_FROM_GRID, borderMode=cv2.BORDER_CONSTANT)
    return room


def _lip_band(mouth: MouthGeometry, fields: MouthFields) -> Box | None:
    """The pixels around the line between the lips, by more than a cell of the grid."""
    inside = np.flatnonzero(np.abs(fields.place) <= 1.1)
    if not len(inside):
        return None
    line = (fields.upper_inner[inside] + fields.lower_inner[inside]) / 2
    margin = 1.5 * float(mouth.y[1] - mouth.y[0])
    return mouth.box_around(float(mouth.x[inside[0]]), float(line.min()) - margin, float(mouth.x[inside[-1]]), float(line.max()) + margin)
