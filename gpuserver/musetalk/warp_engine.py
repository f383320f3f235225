"""The default engine: moves the lips of the source picture itself, on a CPU, without weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gpuserver.domain import AvatarFrame, FaceCrop, Floats, Listener, MouthJob
from gpuserver.musetalk.mouth_fields import MouthFields, move_mouth
from gpuserver.musetalk.mouth_geometry import MouthGeometry, measure_mouth
from gpuserver.musetalk.mouth_interior import paint_interior
from gpuserver.musetalk.mouth_light import FaceLight, measure_light, planes
from gpuserver.musetalk.mouth_listener import MouthListener
from gpuserver.musetalk.mouth_shape import rest_row


@dataclass(frozen=True, slots=True, eq=False)
class SourceMouth:
    """What is known of a frame's mouth before it is moved."""

    frame: AvatarFrame
    geometry: MouthGeometry
    light: FaceLight


class WarpEngine:
    """Implements LipSyncEngine. Remembers the geometry of the frames drawn last; a drawing depends on its job alone."""

    name = "warp"
    max_batch = 1
    _REMEMBERED = 256  # frames, about 6 kB each beside the shared picture

    def __init__(self) -> None:
        self._sources: OrderedDict[int, SourceMouth] = OrderedDict()

    def listener(self) -> Listener:
        return MouthListener()

    def rest(self) -> Floats:
        return rest_row()

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
        return [self._draw(self._source(job.frame), job.features) for job in jobs]

    def _source(self, frame: AvatarFrame) -> SourceMouth:
        known = self._sources.pop(id(frame), None)
        # The entry holds its frame, so an id is never taken over while it is remembered.
        source = known if known is not None else SourceMouth(frame, measure_mouth(frame), measure_light(frame))
        self._sources[id(frame)] = source
        if len(self._sources) > self._REMEMBERED:
            self._sources.popitem(last=False)
        return source

    def _draw(self, source: SourceMouth, row: Floats) -> FaceCrop:
        mouth = source.geometry
        fields = move_mouth(mouth, row)
        y, u, v = _warp(source, fields)
        paint = paint_interior(source.frame, mouth, source.light, fields, row)
        if paint is not None:
            paint.lay_over(y, u, v)
        return FaceCrop(mouth.box, y, u, v)


def _warp(source: SourceMouth, fields: MouthFields) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three planes of the mouth's box with the skin moved."""
    mouth = source.geometry
    box = mouth.box
    size = (box.width, box.height)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    field = cv2.warpAffine(fields.backward, mouth.box_to_grid(), size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    dx, upper, lower, side = cv2.split(field)
    dy = np.where(side < 0, upper, lower)
    unit = np.float32(mouth.unit)
    map_x = unit * (dx * mouth.across[0] + dy * mouth.down[0])
    map_y = unit * (dx * mouth.across[1] + dy * mouth.down[1])
    half_x, half_y = map_x[::2, ::2] / 2, map_y[::2, ::2] / 2
    map_x += np.arange(box.left, box.right, dtype=np.float32)
    map_y += np.arange(box.top, box.bottom, dtype=np.float32)[:, None]
    half_x += np.arange(box.left // 2, box.right // 2, dtype=np.float32)
    half_y += np.arange(box.top // 2, box.bottom // 2, dtype=np.float32)[:, None]
    y, u, v = planes(source.frame)
    return (
        cv2.remap(y, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(u, half_x, half_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(v, half_x, half_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    )
