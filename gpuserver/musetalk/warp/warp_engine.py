"""The default engine: moves the lips of the source picture itself, on a CPU, without weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import ref

import numpy as np

from gpuserver.domain import AvatarFrame, FaceCrop, Floats, Listener, MouthJob
from gpuserver.musetalk.warp.mouth_fields import move_mouths
from gpuserver.musetalk.warp.mouth_geometry import MouthGeometry, measure_mouth
from gpuserver.musetalk.warp.mouth_interior import paint_interiors
from gpuserver.musetalk.warp.mouth_light import FaceLight, lights_together, measure_light
from gpuserver.musetalk.warp.mouth_listener import MouthListener
from gpuserver.musetalk.warp.mouth_paint import Paint
from gpuserver.musetalk.warp.mouth_row import side_by_side
from gpuserver.musetalk.warp.mouth_shape import rest_row
from gpuserver.musetalk.warp.mouth_skin import Planes, SkinMover


@dataclass(frozen=True, slots=True, eq=False)
class SourceMouth:
    """What is known of a frame's mouth before it is moved."""

    frame: ref[AvatarFrame]  # whose pictures, mapped from the disk, take room there until nobody holds them, also deleted ones
    geometry: MouthGeometry
    light: FaceLight


class WarpEngine:
    """Implements LipSyncEngine. Remembers the geometry of the frames drawn last; a drawing depends on its job alone."""

    name = "warp"
    max_batch = 10  # what two sessions say in a fifth of a second; a student's first mouths wait for a batch of others at most
    _REMEMBERED = 256  # frames, about 6 kB each

    def __init__(self) -> None:
        self._sources: OrderedDict[int, SourceMouth] = OrderedDict()
        self._skin = SkinMover()

    def listener(self) -> Listener:
        return MouthListener()

    def rest(self) -> Floats:
        return rest_row()

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
        sources = [self._source(job.frame) for job in jobs]
        geometries = [source.geometry for source in sources]
        mouths, light = side_by_side(geometries), lights_together([source.light for source in sources])
        rows = np.array([job.features for job in jobs])
        fields = move_mouths(mouths, rows)
        paints = paint_interiors(geometries, mouths, light, fields, rows)
        skins = self._skin.move([job.frame for job in jobs], geometries, mouths, fields)
        drawn = zip(jobs, geometries, skins, paints, strict=True)
        return [_crop(job.frame, geometry, skin, paint) for job, geometry, skin, paint in drawn]

    def _source(self, frame: AvatarFrame) -> SourceMouth:
        source = self._sources.pop(id(frame), None)
        if source is None or source.frame() is not frame:  # an id is taken over by another frame when the first one has gone
            source = SourceMouth(ref(frame), measure_mouth(frame), measure_light(frame))
        self._sources[id(frame)] = source
        if len(self._sources) > self._REMEMBERED:
            self._sources.popitem(last=False)
        return source


def _crop(frame: AvatarFrame, geometry: MouthGeometry, skin: Planes, paint: Paint | None) -> FaceCrop:
    if paint is not None:
        paint.lay_over(skin, geometry.box, frame)
    return FaceCrop(geometry.box, *skin)
