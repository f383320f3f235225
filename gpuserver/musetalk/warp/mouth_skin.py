"""Draws the skin around the mouth where its fields move it: the picture's own pixels, taken from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from gpuserver.domain import AvatarFrame, Box, Bytes2D, Floats
from gpuserver.musetalk.warp.mouth_fields import MouthFields
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry
from gpuserver.musetalk.warp.mouth_light import planes
from gpuserver.musetalk.warp.mouth_row import MouthRow, lips_extents

CRISP_WIDTH = 160  # pixels: up to this mouth width luma is interpolated cubically; pores of larger ones bear a linear one
COARSE_WIDTH = 40  # pixels: from here on the grid's cells are about as large as every second pixel, and that is enough
_FROM_GRID = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

Planes = tuple[Bytes2D, Bytes2D, Bytes2D]


class SkinMover:
    """Keeps its working memory from frame to frame, as fresh pages cost more than the arithmetic on them. For one thread."""

    def __init__(self) -> None:
        self._memory: dict[str, Floats] = {}

    def move(
        self, frames: Sequence[AvatarFrame], geometries: Sequence[MouthGeometry], mouths: MouthRow, fields: MouthFields
    ) -> list[Planes]:
        """Per mouth the three planes of its box with the skin moved: uint8 [h, w], [h / 2, w / 2] twice."""
        across, down = (
            np.array([mouth.unit * axis for mouth, axis in zip(geometries, axes, strict=True)], np.float32).T[..., None, None]
            for axes in ([mouth.across for mouth in geometries], [mouth.down for mouth in geometries])
        )
        chosen = in_pixels(fields.backward, across, down)
        bands = lip_bands(geometries, mouths, fields)
        return [
            self._move(frame, mouth, fields.backward[:, number], chosen[:, number], bands[number])
            for number, (frame, mouth) in enumerate(zip(frames, geometries, strict=True))
        ]

    def _move(self, frame: AvatarFrame, mouth: MouthGeometry, backward: Floats, chosen: Floats, band: Box | None) -> Planes:
        """backward: of this mouth, as in MouthFields. chosen: in_pixels() of it. band: around the lip line."""
        box = mouth.box
        displacement = self._displacement(mouth, backward, chosen, band)
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

    def _displacement(self, mouth: MouthGeometry, backward: Floats, chosen: Floats, band: Box | None) -> Floats:
        """Where each pixel of the mouth's box comes from: float32 [2, h, w], pixels to the right and down of itself.

        The two layers meet at the lip line. Choosing between them on the grid blurs them into each other over one cell, so
        around the line each pixel chooses for itself.
        """
        box, step = mouth.box, 2 if mouth.unit >= COARSE_WIDTH else 1
        displacement = self._room("displacement", 2, box.height, box.width)
        coarse = self._room("coarse", 2, box.height // step, box.width // step) if step > 1 else displacement
        to_grid = mouth.box_to_grid(box, step)
        for field, room in zip(chosen, coarse, strict=True):
            cv2.warpAffine(field, to_grid, room.shape[::-1], dst=room, flags=_FROM_GRID, borderMode=cv2.BORDER_CONSTANT)
        if step > 1:
            for finer, coarser in zip(displacement, coarse, strict=True):
                cv2.resize(coarser, (box.width, box.height), dst=finer)
        if band is not None:
            top, left = band.top - box.top, band.left - box.left
            room = self._room("band", band.height, band.width, 4)
            to_grid = mouth.box_to_grid(band)
            fields = cv2.merge(list(backward))
            cv2.warpAffine(fields, to_grid, room.shape[1::-1], dst=room, flags=_FROM_GRID, borderMode=cv2.BORDER_CONSTANT)
            around = in_pixels(np.array(cv2.split(room)), mouth.unit * mouth.across, mouth.unit * mouth.down)
            displacement[:, top : top + band.height, left : left + band.width] = around
        return displacement

    def _room(self, name: str, *shape: int) -> Floats:
        """An array to write into; its values are left over."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.float32)
        return memory[:size].reshape(shape)


def in_pixels(backward: Floats, across: Floats, down: Floats) -> Floats:
    """The displacement of each point's own layer in pixels, float32 [2, ...]. backward: float32 [4, ...], as in MouthFields.

    across, down: of the mouth in the picture, [2, ...], pixels per mouth width.
    """
    sideways, above, below, height = backward
    vertical = np.where(height < 0, above, below)
    return np.array([sideways * across[axis] + vertical * down[axis] for axis in (0, 1)])


def _moved(plane: Bytes2D, displacement: Floats, interpolation: int) -> Bytes2D:
    right, down = displacement
    moved = cv2.remap(plane, right, down, interpolation | cv2.WARP_RELATIVE_MAP, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def lip_bands(geometries: Sequence[MouthGeometry], mouths: MouthRow, fields: MouthFields) -> list[Box | None]:
    """Per mouth the pixels around the line between the lips, by more than a cell of the grid."""
    line = (fields.upper_inner + fields.lower_inner) / 2
    extents = lips_extents(mouths, fields.place, line, line, reach=1.1)
    margins = (1.5 * (mouths.y[:, 1] - mouths.y[:, 0])).tolist()
    return [
        None if extent is None else mouth.box_around(*extent.grown(margin))
        for mouth, extent, margin in zip(geometries, extents, margins, strict=True)
    ]
