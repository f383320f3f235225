"""The default engine: moves the lips of the source picture itself, on a CPU, without weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from gpuserver.domain import AvatarFrame, FaceCrop, Floats, Listener, MouthJob
from gpuserver.musetalk.warp.mouth_fields import move_mouth
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry, measure_mouth
from gpuserver.musetalk.warp.mouth_interior import paint_interior
from gpuserver.musetalk.warp.mouth_light import FaceLight, measure_light
from gpuserver.musetalk.warp.mouth_listener import MouthListener
from gpuserver.musetalk.warp.mouth_shape import rest_row
from gpuserver.musetalk.warp.mouth_skin import SkinMover


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
        self._skin = SkinMover()

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
        y, u, v = self._skin.move(source.frame, mouth, fields)
        paint = paint_interior(mouth, source.light, fields, row)
        if paint is not None:
            paint.lay_over((y, u, v), mouth.box, source.frame)
        return FaceCrop(mouth.box, y, u, v)
