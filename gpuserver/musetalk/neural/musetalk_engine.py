"""MuseTalk as an engine: hears with Whisper, paints faces with UNet and VAE, pastes what shows of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from gpuserver.domain import AvatarFrame, Bytes2D, FaceCrop, Floats, LatentFace, Listener, MouthJob
from gpuserver.errors import DeviceLost, WeightsDamaged
from gpuserver.musetalk.networks.inference import prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet
from gpuserver.musetalk.networks.vae import Vae
from gpuserver.musetalk.networks.whisper import WhisperEncoder
from gpuserver.musetalk.neural.cuda_graphs import BUCKETS, GraphPainter
from gpuserver.musetalk.neural.face_painter import CpuPainter, FaceNetwork, Faces, Order, Painter
from gpuserver.musetalk.neural.face_paste import paste
from gpuserver.musetalk.neural.musetalk_listener import Ear, MuseTalkListener, rest_row
from gpuserver.musetalk.neural.tuning import Tuning
from gpuserver.musetalk.neural.whisper_ear import WhisperEar

T = TypeVar("T")

_NEUTRAL = np.zeros((8, 32, 32), np.float16)  # the latents of an average picture

Paste = Callable[[Bytes2D, AvatarFrame, LatentFace], FaceCrop]


@dataclass(frozen=True, slots=True)
class MuseTalkStats:
    """A snapshot; the counters run since the engine was made."""

    device: str
    max_batch: int
    batches: int
    painted: int  # faces
    not_finite: int  # faces that the network gave no numbers for: the source's own mouth was shown
    without_latent: int  # frames of an avatar that was not prepared for MuseTalk
    out_of_memory: int  # times that a batch of faces or sounds had to be halved, or a single one left out


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A job whose frame has a latent."""

    job: MouthJob
    face: LatentFace


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Tasks that the painter has taken. faces: waits for them; None where they are given up."""

    tasks: Sequence[_Task]
    faces: Callable[[], Faces] | None


def make_musetalk_engine(
    unet: UNet, vae: Vae, whisper: WhisperEncoder, *, max_batch: int = 8, tuned: bool = True, paste: Paste = paste
) -> MuseTalkEngine:
    """An engine of loaded networks, on the device where they are; the UNet is made ready for inference. It is cold: warm_up().

    max_batch: faces at a time, 1 to 32. tuned: on a GPU, ways to draw are compared while warming up. paste: what becomes of a face.
    """
    network = FaceNetwork(unet if unet.time_embedding is None else prepare_for_inference(unet), vae)
    painter: Painter
    if network.device.type == "cuda":
        painter = GraphPainter(network, [bucket for bucket in BUCKETS if bucket <= max_batch], tuning=Tuning() if tuned else None)
    else:
        painter = CpuPainter(network, max_batch)
    return MuseTalkEngine(painter, WhisperEar(whisper), device=str(network.device), paste=paste)


class MuseTalkEngine:
    """Implements PipelinedEngine. A frame that cannot be drawn gets None, the source's own mouth: no latent, no memory, no finite numbers.

    Nothing of an avatar is kept on the device: with every row of 77 kB goes the frame's latent of 16 kB.
    """

    name = "musetalk"

    def __init__(self, painter: Painter, ear: WhisperEar, *, device: str = "cpu", paste: Paste = paste):
        self._painter = painter
        self._ear = ear
        self._device = device
        self._paste = paste
        self._rest: Floats | None = None
        self._most = painter.max_batch  # faces at a time, for which there was memory up to now
        self._counts: Counter[str] = Counter()  # as named in MuseTalkStats
        self._lock = threading.Lock()
        self._lost: DeviceLost | None = None

    @property
    def ear(self) -> Ear:
        """For listeners in other processes."""
        return self._ear

    @property
    def max_batch(self) -> int:
        return min(self._most, self._painter.max_batch)

    @property
    def remarks(self) -> Sequence[str]:
        """What warm_up() found out about the device, for the log."""
        return self._painter.remarks

    @property
    def out_of_memory(self) -> int:
        """As in stats()."""
        return self._counts["out_of_memory"] + self._ear.out_of_memory

    def warm_up(self) -> None:
        """Once, before the first job: reserves memory, chooses kernels, hears silence.

        Raises torch.OutOfMemoryError where the networks do not fit, DeviceLost, and WeightsDamaged where they give no numbers: every
        face would be left out otherwise, and nobody would know why.
        """
        self._painter.warm_up()
        self._ear.warm_up()
        silence = self.rest()
        if not np.isfinite(silence).all():
            raise WeightsDamaged("What Whisper hears of silence is not finite: its weights are damaged.")
        if not self._guarded(self._painter.begin([Order(_NEUTRAL, silence)])).usable.all():
            raise WeightsDamaged("The face that UNet and VAE draw of silence is not finite: their weights are damaged.")

    def listener(self) -> Listener:
        return MuseTalkListener(self._ear)

    def rest(self) -> Floats:
        if self._rest is None:
            self._rest = rest_row(self._ear)
        return self._rest

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop | None]:
        return self.begin(jobs).crops()

    def begin(self, jobs: Sequence[MouthJob]) -> MuseTalkDrawing:
        """Raises DeviceLost, for good: every later call does."""
        tasks = [_Task(job, job.frame.generated) for job in jobs if job.frame.generated is not None]
        self._count(batches=1, without_latent=len(jobs) - len(tasks))
        return MuseTalkDrawing(self, jobs, self.start(tasks))

    def stats(self) -> MuseTalkStats:
        with self._lock:
            counts = self._counts.copy()
        return MuseTalkStats(
            device=self._device,
            max_batch=self.max_batch,
            batches=counts["batches"],
            painted=counts["painted"],
            not_finite=counts["not_finite"],
            without_latent=counts["without_latent"],
            out_of_memory=self.out_of_memory,
        )

    # ------------------------------------------------------------ for its drawings

    def start(self, tasks: Sequence[_Task]) -> list[_Batch]:
        """Give the painter the tasks, in as many batches as there is memory for. Raises DeviceLost."""
        batches: list[_Batch] = []
        while tasks:
            most = self.max_batch
            batches += self._start_batch(tasks[:most])  # which may lower max_batch
            tasks = tasks[most:]
        return batches

    def paint(self, batch: _Batch) -> list[FaceCrop | None]:
        """Waits for a batch that was started. Raises DeviceLost."""
        if batch.faces is None:
            return [None] * len(batch.tasks)
        try:
            faces = self._guarded(batch.faces)
        except torch.OutOfMemoryError:
            faces = None
        if faces is None:
            return [crop for smaller in self._start_halves(batch.tasks) for crop in self.paint(smaller)]
        self._count(painted=len(batch.tasks), not_finite=int((~faces.usable).sum()))
        return [
            self._paste(picture, task.job.frame, task.face) if usable else None
            for task, picture, usable in zip(batch.tasks, faces.pictures, faces.usable, strict=True)
        ]

    def _start_batch(self, tasks: Sequence[_Task]) -> list[_Batch]:
        try:
            return [
                _Batch(tasks, self._guarded(lambda: self._painter.begin([Order(task.face.latent, task.job.features) for task in tasks])))
            ]
        except torch.OutOfMemoryError:
            pass  # what the failed call has allocated is held by the exception, which ends here
        return self._start_halves(tasks)

    def _start_halves(self, tasks: Sequence[_Task]) -> list[_Batch]:
        """After a batch for which there was no memory: from now on none is as large. A single face is given up."""
        self._count(out_of_memory=1)
        if len(tasks) == 1:
            return [_Batch(tasks, None)]
        self._most = min(self._most, len(tasks) // 2)
        return self.start(tasks)

    def _guarded(self, work: Callable[[], T]) -> T:
        """A device that was lost once is not asked again."""
        if self._lost is not None:
            raise self._lost
        try:
            return work()
        except DeviceLost as error:
            self._lost = error
            raise

    def _count(self, **counts: int) -> None:
        with self._lock:
            self._counts.update(counts)


class MuseTalkDrawing:
    """Implements Drawing: the crops of some jobs, of which those without a latent have none."""

    def __init__(self, engine: MuseTalkEngine, jobs: Sequence[MouthJob], batches: Sequence[_Batch]):
        self._engine = engine
        self._jobs = jobs
        self._batches = batches

    def crops(self) -> list[FaceCrop | None]:
        """To be called once."""
        painted = iter([crop for batch in self._batches for crop in self._engine.paint(batch)])
        return [None if job.frame.generated is None else next(painted) for job in self._jobs]
