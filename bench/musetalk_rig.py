"""What the MuseTalk benchmark draws with: full-size networks with random weights, frames without pictures, sound by formula."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gpuserver.domain import AvatarFrame, Box, Bytes2D, FaceCrop, Generation, LatentFace, MouthJob, Speech
from gpuserver.musetalk.networks.inference import prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.cuda_graphs import GraphPainter
from gpuserver.musetalk.neural.face_painter import CpuPainter, FaceNetwork, Painter
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine, make_musetalk_engine
from gpuserver.musetalk.neural.tuning import Tuning
from gpuserver.musetalk.neural.whisper_ear import WhisperEar
from gpuserver.musetalk.weight_files.made_up_weights import random_weights

RATE = 16_000  # Hz
_FACE = Box(0, 0, 256, 256)
_PICTURE: Bytes2D = np.full((384, 256), 128, np.uint8)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. batches: of the speed table; others: that an engine is made for alone.

    seconds, rounds: of each measurement of speed. repeats: of short work.

    sessions: to be tried, each for session_seconds. frames: of the avatar.
    """

    batches: tuple[int, ...]
    others: tuple[int, ...]
    upstream_batch: int
    seconds: float
    rounds: int
    repeats: int
    sessions: tuple[int, ...]
    session_seconds: float
    frames: int = 250

    @classmethod
    def full(cls) -> Size:
        return cls((1, 2, 4, 8, 16), (12, 20, 32), 20, 3.0, 5, 200, (16, 20, 24, 28, 32), 10.0)

    @classmethod
    def quick(cls) -> Size:
        return cls((1, 8, 16), (12,), 20, 1.0, 3, 50, (16, 24), 4.0)

    @classmethod
    def tiny(cls) -> Size:
        """For a test on a CPU."""
        return cls((1,), (1,), 1, 0.0, 1, 1, (1,), 0.05, frames=1)


class Rig:
    """Networks on a device, and work for them. tiny: small networks of the same graph. tuned: ways to draw are compared at warm-up."""

    def __init__(self, device: str, size: Size, *, tiny: bool = False, tuned: bool = True):
        self.device = torch.device(device)
        self.size = size
        self._tuned = tuned
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self._configs = _smallest() if tiny else _official()
        self.latents = np.random.default_rng(1).normal(0, 1, (size.frames, 8, 32, 32)).astype(np.float16)
        self.frames = [_frame(index, latent) for index, latent in enumerate(self.latents)]

    def networks(self, seed: int = 1) -> tuple[UNet, Vae, WhisperEncoder]:
        """New ones, made on the device."""
        unet, vae, whisper = self._configs
        with torch.device("meta"):
            made = UNet(unet), Vae(vae), WhisperEncoder(whisper)
        a, b, c = (random_weights(network, seed, device=self.device, dtype=self.dtype) for network in made)
        assert isinstance(a, UNet) and isinstance(b, Vae) and isinstance(c, WhisperEncoder)
        return a, b, c

    def engine(self, max_batch: int) -> MuseTalkEngine:
        """A cold one that gives the painted faces as they are: the benchmark ends at the bytes of the face on the host."""
        return make_musetalk_engine(*self.networks(), max_batch=max_batch, tuned=self._tuned, paste=_unpasted)

    def variant(self, batch: int, *, compiled: bool = False, layout: torch.memory_format = torch.channels_last) -> MuseTalkEngine:
        """A cold one for one batch size. compiled, or with channels first: nothing else is tried."""
        unet, vae, whisper = self.networks()
        network = FaceNetwork(prepare_for_inference(unet), vae, layout)
        painter: Painter = CpuPainter(network, batch)
        if self.device.type == "cuda":
            tuning = Tuning() if self._tuned and layout is torch.channels_last and not compiled else None
            painter = GraphPainter(network, [batch], compiled=compiled, tuning=tuning)
        return MuseTalkEngine(painter, WhisperEar(whisper), paste=_unpasted)

    def jobs(self, engine: MuseTalkEngine, count: int) -> list[MouthJob]:
        row, generation = engine.rest(), Generation(1)
        return [MouthJob(self.frames[index % len(self.frames)], row.copy(), 0.0, generation) for index in range(count)]

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gigabytes(self) -> float:
        """Of the device's memory that are in use, those of CUDA itself and of other programs included."""
        if self.device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        return (total - free) / 1e9


def speech(seconds: float, seed: int = 7) -> Speech:
    """A voice of eleven overtones that opens and closes 2.3 times a second."""
    at = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * at + seed)) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.clip(np.sin(2 * np.pi * 2.3 * at), 0, 1)
    return Speech((voice * 8000).astype(np.int16), RATE, "")


def seconds_of(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _official() -> tuple[UNetConfig, VaeConfig, WhisperConfig]:
    return UNetConfig.official(), VaeConfig.official(), WhisperConfig.official()


def _smallest() -> tuple[UNetConfig, VaeConfig, WhisperConfig]:
    return UNetConfig((32, 32, 32, 32), 64), VaeConfig((32, 32, 32, 32)), WhisperConfig.tiny()


def _frame(index: int, latent: np.ndarray) -> AvatarFrame:
    lower = Box(0, 128, 256, 256)
    face = LatentFace(latent, _FACE, np.full((128, 256), 255, np.uint8), lower)
    return AvatarFrame(index, _PICTURE, np.zeros((468, 2), np.float32), _FACE, 0.0, face)


def _unpasted(picture: Bytes2D, _frame: AvatarFrame, face: LatentFace) -> FaceCrop:
    return FaceCrop(face.mask_box, picture[:, :, 0], picture[:, :, 1], picture[:, :, 2])
