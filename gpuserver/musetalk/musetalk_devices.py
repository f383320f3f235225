"""MuseTalk on every visible GPU: loaded, warmed up and measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog
import torch

from gpuserver.config import Settings
from gpuserver.domain import AvatarFrame, Box, Generation, LatentFace, MouthJob, PipelinedEngine
from gpuserver.errors import DeviceLost, NoDevice
from gpuserver.musetalk.neural.face_paste import paste
from gpuserver.musetalk.neural.gpu_errors import translated
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine, Paste, make_musetalk_engine
from gpuserver.musetalk.preparing.avatar_latents import wanted_preparation
from gpuserver.musetalk.render_service.faces import unpasted
from gpuserver.musetalk.render_service.service import Painter
from gpuserver.musetalk.renderer import Device
from gpuserver.musetalk.weight_files.model_files import Version
from gpuserver.musetalk.weight_files.weights import load_unet, load_vae, load_whisper

T = TypeVar("T")

log = structlog.get_logger(__name__)

_MEASURED_BATCHES = 8
_FACE = 256  # pixels, of the picture that is measured with


def load_musetalk(settings: Settings) -> list[Device]:
    """Blocks for seconds. A GPU that MuseTalk does not fit on is left out, as long as one is left.

    Raises WeightsMissing, WeightsDamaged, NoDevice, DeviceLost.
    """
    return _on_each_gpu(settings, load_on)


def load_painters(settings: Settings) -> list[Painter]:
    """As load_musetalk(), for a renderer process: the faces are pasted in the workers."""
    return _on_each_gpu(settings, load_painter_on)


def load_on(device: str, base: Path, version: Version) -> Device:
    """One warm engine. Raises WeightsMissing, WeightsDamaged, torch.OutOfMemoryError, DeviceLost."""
    return Device(*_load_engine(device, base, version, paste))


def load_painter_on(device: str, base: Path, version: Version) -> Painter:
    """As load_on()."""
    return Painter(*_load_engine(device, base, version, unpasted))


def _on_each_gpu(settings: Settings, load: Callable[[str, Path, Version], T]) -> list[T]:
    version = Version(wanted_preparation(settings).version)
    if settings.musetalk_base is None or not torch.cuda.is_available():
        raise NoDevice("MuseTalk needs a GPU, and torch sees none. On a CPU it draws less than one face a second.")
    loaded: list[T] = []
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        try:
            loaded.append(load(name, settings.musetalk_base, version))
        except (torch.OutOfMemoryError, DeviceLost) as error:
            log.warning("gpu_left_out", device=name, gpu=torch.cuda.get_device_name(index), reason=str(error))
    if not loaded:
        raise NoDevice("MuseTalk does not fit on any GPU here.", advice="It needs 6 GB of GPU memory; see what else uses it (nvidia-smi).")
    return loaded


def _load_engine(device: str, base: Path, version: Version, paste: Paste) -> tuple[MuseTalkEngine, float]:
    """A warm engine and its speed."""
    with translated():
        networks = load_unet(base, version, device), load_vae(base, device), load_whisper(base, device)
        engine = make_musetalk_engine(*networks, paste=paste)
        engine.warm_up()
        speed = frames_per_second(engine)
    log.info("gpu_ready", device=device, frames_per_second=round(speed), tuning=engine.remarks)
    return engine, speed


def frames_per_second(engine: PipelinedEngine, clock: Callable[[], float] = time.perf_counter) -> float:
    """How fast a warm engine draws full batches, one begun while the other is being finished. Raises DeviceLost."""
    jobs = [_job(engine)] * engine.max_batch
    begun = clock()
    drawing = engine.begin(jobs)
    for _ in range(_MEASURED_BATCHES - 1):
        following = engine.begin(jobs)
        drawing.crops()
        drawing = following
    drawing.crops()
    return _MEASURED_BATCHES * len(jobs) / (clock() - begun)


def _job(engine: PipelinedEngine) -> MouthJob:
    """Silence, on a grey picture whose whole lower half shows."""
    picture = np.full((_FACE * 3 // 2, _FACE), 128, np.uint8)
    lower = Box(0, _FACE // 2, _FACE, _FACE)
    latent = np.zeros((8, 32, 32), np.float16)
    face = LatentFace(latent, Box(0, 0, _FACE, _FACE), np.full((lower.height, lower.width), 255, np.uint8), lower)
    frame = AvatarFrame(0, picture, np.zeros((468, 2), np.float32), face.box, 0.0, face)
    return MouthJob(frame, engine.rest(), 0.0, Generation(0))
