"""The parent's side of a preparation for MuseTalk: starts the child process, passes on what it tells, and says what its end means."""

from __future__ import annotations

import logging

from gpuserver.errors import (
    AvatarDamaged,
    AvatarNotFound,
    AvatarRoomFull,
    DiskFull,
    GpuserverError,
    NoDevice,
    WeightsDamaged,
    WeightsMissing,
)
from gpuserver.interpreter import OWN, Interpreter
from gpuserver.musetalk.preparing.child_process import Ending, child_environment, run_child
from gpuserver.musetalk.preparing.latent_preparation import LatentRequest
from gpuserver.musetalk.preparing.preparation_job import Watch
from gpuserver.wire import MuseTalkPreparation

START_SECONDS = 300.0  # torch and the weights, from a slow disk
FRAME_SECONDS = 12.0  # on two busy cores; a GPU takes milliseconds
MODULE = "gpuserver.musetalk.preparing.latent_preparation"

_GPU = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_ERRORS: dict[str, type[GpuserverError]] = {
    kind.slug: kind
    for kind in (GpuserverError, NoDevice, WeightsMissing, WeightsDamaged, AvatarNotFound, AvatarDamaged, DiskFull, AvatarRoomFull)
}

_log = logging.getLogger(__name__)


def run_latent_preparation(
    request: LatentRequest,
    frames: int,
    watch: Watch | None = None,
    *,
    python: Interpreter = OWN,
    module: str = MODULE,
    wall_seconds: float | None = None,
) -> MuseTalkPreparation:
    """Fill request.folder with this Python and wait for the end. frames: of the avatar; the time limit follows from it.

    Raises WeightsMissing, WeightsDamaged, NoDevice, AvatarNotFound, AvatarDamaged, DiskFull, Cancelled, and GpuserverError where the
    child itself fails. The child is gone when this returns or raises.
    """
    watch = watch or Watch()
    command = [python.path, "-P", "-m", module, request.model_dump_json()]
    limit = START_SECONDS + FRAME_SECONDS * frames if wall_seconds is None else wall_seconds
    environment = child_environment(python, also=_GPU, one_thread=False)
    try:
        ending = run_child(command, environment, watch.hear, wall_seconds=limit, cancel=watch.cancel)
    except TimeoutError:
        raise GpuserverError("The avatar took too long to prepare for MuseTalk.") from None
    return _result(ending)


def _result(ending: Ending) -> MuseTalkPreparation:
    if ending.code == 0 and "result" in ending.outcome:
        return MuseTalkPreparation.model_validate(ending.outcome["result"])
    ending.raise_told(_ERRORS)
    _log.warning("preparation for MuseTalk ended with code %s: %s", ending.code, ending.said)
    raise GpuserverError("The preparation of the avatar for MuseTalk failed.", advice="The server's log says why.")
