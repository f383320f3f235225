"""What the engine does with what a device can do wrong; the device is a fake."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from fakes import fake_frame

from gpuserver.domain import AvatarFrame, Box, Bytes2D, FaceCrop, Generation, LatentFace, MouthJob, PipelinedEngine, Speech
from gpuserver.errors import DeviceLost, WeightsDamaged
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.face_painter import Faces, Order
from gpuserver.musetalk.neural.gpu_errors import translated
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine
from gpuserver.musetalk.neural.whisper_ear import WhisperEar
from gpuserver.musetalk.weight_files.made_up_weights import random_weights

MASK_BOX = Box(8, 12, 24, 20)


class FakePainter:
    """Paints every face in the level of its row. Has memory for `room` faces at a time, when they are begun or when they are waited for."""

    remarks = ("norms by a fake: 1.00 ms for 8 faces, chosen",)

    def __init__(self, max_batch: int = 8, room: int = 8, *, late: bool = False):
        self.max_batch = max_batch
        self.room = room
        self.sizes: list[int] = []
        self.lost = False
        self._late = late

    def begin(self, orders: Sequence[Order]) -> Callable[[], Faces]:
        if self.lost:
            with translated():
                raise RuntimeError("CUDA error: unspecified launch failure\nand more")
        if not self._late:
            self._reserve(len(orders))
        return lambda: self._paint(orders)

    def warm_up(self) -> None:
        self.begin([])

    def _reserve(self, faces: int) -> None:
        self.sizes.append(faces)
        if faces > self.room:
            raise torch.OutOfMemoryError(f"no memory for {faces}")

    def _paint(self, orders: Sequence[Order]) -> Faces:
        if self._late:
            self._reserve(len(orders))
        levels = np.array([order.row.max() for order in orders])
        usable = np.isfinite(levels)
        bytes_ = np.where(usable, levels, 0).astype(np.uint8)
        return Faces(np.broadcast_to(bytes_[:, None, None, None], (len(orders), 256, 256, 3)), usable)


def flat_paste(picture: Bytes2D, frame: AvatarFrame, face: LatentFace) -> FaceCrop:
    level = np.full((8, 16), picture[0, 0, 0], np.uint8)
    return FaceCrop(face.mask_box, level, level[:4, :8], level[:4, :8])


def job(level: float, *, prepared: bool = True) -> MouthJob:
    plain = fake_frame(0)
    face = LatentFace(np.zeros((8, 32, 32), np.float16), plain.face, np.full((8, 16), 255, np.uint8), MASK_BOX)
    frame = AvatarFrame(0, plain.picture, plain.landmarks, plain.face, 0.0, face if prepared else None)
    return MouthJob(frame, np.full((50, 64), level, np.float32), 0.0, Generation(1))


def levels(crops: Sequence[FaceCrop | None]) -> list[int | None]:
    return [None if crop is None else int(crop.y[0, 0]) for crop in crops]


@pytest.fixture(scope="module")
def ear() -> WhisperEar:
    torch.set_num_threads(1)
    return WhisperEar(random_weights(WhisperEncoder(WhisperConfig.tiny())))


def engine(painter: FakePainter, ear: WhisperEar) -> MuseTalkEngine:
    return MuseTalkEngine(painter, ear, paste=flat_paste)


def test_it_draws_in_the_background(ear: WhisperEar) -> None:
    made: PipelinedEngine = engine(FakePainter(), ear)
    assert isinstance(made, PipelinedEngine)
    drawing = made.begin([job(7), job(8)])
    assert levels(drawing.crops()) == [7, 8]


def test_frames_that_were_not_prepared_for_it_keep_their_own_mouth(ear: WhisperEar) -> None:
    made = engine(FakePainter(), ear)
    assert levels(made.render([job(1), job(2, prepared=False), job(3)])) == [1, None, 3]
    assert levels(made.render([job(2, prepared=False)])) == [None]
    assert made.stats().without_latent == 2
    assert made.stats().painted == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_face_without_numbers_is_left_out_and_counted(ear: WhisperEar, bad: float) -> None:
    made = engine(FakePainter(), ear)
    assert levels(made.render([job(1), job(bad), job(3)])) == [1, None, 3]
    assert made.stats().not_finite == 1


@pytest.mark.parametrize(("late", "halved"), [(False, 2), (True, 3)])  # late: both halves of 4 are begun before one fails
def test_a_batch_for_which_there_is_no_memory_is_halved_and_stays_so(ear: WhisperEar, late: bool, halved: int) -> None:
    painter = FakePainter(max_batch=8, room=3, late=late)
    made = engine(painter, ear)
    assert levels(made.render([job(level) for level in range(8)])) == list(range(8))
    assert painter.sizes[0] == 8
    assert painter.sizes.count(2) == 4
    assert made.max_batch == 2
    assert made.out_of_memory == made.stats().out_of_memory == halved
    assert levels(made.render([job(level) for level in range(4)])) == list(range(4))
    assert made.out_of_memory == halved


@pytest.mark.parametrize("late", [False, True])
def test_without_memory_for_a_single_face_the_source_stays_and_later_ones_are_tried(ear: WhisperEar, late: bool) -> None:
    painter = FakePainter(max_batch=2, room=0, late=late)
    made = engine(painter, ear)
    assert levels(made.render([job(1), job(2)])) == [None, None]
    assert made.out_of_memory == 3
    painter.room = 1
    assert levels(made.render([job(5)])) == [5]


def test_a_lost_device_is_lost_for_good(ear: WhisperEar) -> None:
    painter = FakePainter()
    made = engine(painter, ear)
    painter.lost = True
    with pytest.raises(DeviceLost, match=r"CUDA error: unspecified launch failure$"):
        made.begin([job(1)])
    painter.lost = False
    with pytest.raises(DeviceLost):
        made.begin([job(1)])


def test_a_batch_that_was_begun_before_the_loss_is_lost_with_it(ear: WhisperEar) -> None:
    painter = FakePainter()
    made = engine(painter, ear)
    begun = made.begin([job(1)])
    painter.lost = True
    with pytest.raises(DeviceLost):
        made.begin([job(2)])
    with pytest.raises(DeviceLost):
        begun.crops()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA error: an illegal memory access was encountered", DeviceLost),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", DeviceLost),
        ("CUDA driver error: device not ready", DeviceLost),
        ("Triton Error [CUDA]: an illegal memory access was encountered", DeviceLost),
        ("CUDA error: out of memory", torch.OutOfMemoryError),
        ("FIND was unable to find an engine to execute this computation", torch.OutOfMemoryError),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", torch.OutOfMemoryError),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_errors_of_a_gpu_are_of_two_kinds(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, translated():
        raise RuntimeError(text)
    assert caught.type is kind


class NumbPainter(FakePainter):
    """Its networks give no numbers."""

    def _paint(self, orders: Sequence[Order]) -> Faces:
        return Faces(np.zeros((len(orders), 256, 256, 3), np.uint8), np.zeros(len(orders), np.bool_))


def test_networks_that_draw_no_numbers_are_not_taken_for_good_ones(ear: WhisperEar) -> None:
    with pytest.raises(WeightsDamaged, match="UNet and VAE"):
        engine(NumbPainter(), ear).warm_up()


def test_a_network_that_hears_no_numbers_is_not_taken_for_a_good_one() -> None:
    whisper = random_weights(WhisperEncoder(WhisperConfig.tiny()))
    whisper.layer_norm.weight[0] = torch.nan
    with pytest.raises(WeightsDamaged, match="Whisper"):
        engine(FakePainter(), WhisperEar(whisper)).warm_up()


def test_it_warms_up_once_and_knows_its_rest(ear: WhisperEar) -> None:
    made = engine(FakePainter(), ear)
    made.warm_up()
    assert made.rest().shape == (50, 64)
    assert made.rest() is made.rest()


def test_its_listener_hears_with_the_network(ear: WhisperEar) -> None:
    listener = engine(FakePainter(), ear).listener()
    noise = np.random.default_rng(1).normal(0, 3000, 16_000).astype(np.int16)
    rows = np.concatenate([listener.hear(Speech(noise, 16_000, "")), listener.finish()])
    assert listener.blocking
    assert rows.shape == (25, 50, 64)
    assert np.isfinite(rows).all()
