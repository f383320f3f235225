"""What MuseTalk needs of an avatar: latents of the right box, masks, and a child process that never outlives its parent's wish."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_avatar import JAW, fake_encode, write_small_avatar

from gpuserver.domain import Avatar, Box
from gpuserver.errors import AvatarDamaged, AvatarRoomFull, Cancelled, DiskFull, GpuserverError, WeightsDamaged, WeightsMissing
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.avatars.latent_files import read_preparation, with_latents
from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.neural.blending import soft_mask
from gpuserver.musetalk.neural.face_boxes import mesh_boxes
from gpuserver.musetalk.neural.face_mask import SKIN
from gpuserver.musetalk.preparing.face_encoder import FaceEncoder, FaceParser
from gpuserver.musetalk.preparing.latent_job import run_latent_preparation
from gpuserver.musetalk.preparing.latent_preparation import LatentRequest, face_crop, latent_faces
from gpuserver.musetalk.preparing.preparation_job import Watch
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small_avatar(folder)
    return folder


@pytest.fixture(scope="module")
def avatar(small: Path) -> Avatar:
    return load_avatar(small)


def golden(name: str) -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        return dict(arrays)


# ---------------------------------------------------------------- the networks


def test_the_latents_of_a_face_are_the_official_ones() -> None:
    arrays, frame = golden("pipeline_tiny.npz"), golden("blending.npz")["frame0"].astype(np.uint8)
    crop = face_crop(frame, Box(*arrays["bbox_v15"].tolist()))
    np.testing.assert_array_equal(crop, arrays["crop256_bgr"])
    encode = FaceEncoder(formula_weights(Vae(VaeConfig.tiny()), "vae:"))
    latents = encode(crop[None, :, :, ::-1])
    assert np.abs(latents - arrays["latents_mode"].astype(np.float32)).max() < 1e-3  # float16 alone takes 2.4e-4
    np.testing.assert_array_equal(encode(crop[None, :, :, ::-1]), latents)


def test_the_parts_of_a_face_are_the_official_ones() -> None:
    arrays = golden("bisenet.npz")
    parse = FaceParser(formula_weights(BiSeNet(), "bisenet:"))
    classes = parse(np.ascontiguousarray(arrays["frame0_bgr"].astype(np.uint8)[:, :, ::-1]))
    assert (classes == arrays["argmax"]).mean() > 0.999


class CrampedVae(torch.nn.Module):
    """Holds two pictures at a time; more are out of memory."""

    def __init__(self, most: int):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad=False)
        self.most, self.asked = most, list[int]()

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(len(images))
        if len(images) > self.most:
            raise torch.cuda.OutOfMemoryError
        latents = images.mean(dim=(1, 2, 3))[:, None, None, None].expand(-1, 4, 32, 32) * self.scale
        return latents, latents


def test_a_full_gpu_gets_smaller_batches_and_no_face_is_lost() -> None:
    faces = np.stack([np.full((256, 256, 3), level, np.uint8) for level in (0, 50, 100, 150, 200)])
    vae = CrampedVae(most=4)
    latents = FaceEncoder(vae, batch=8)(faces)  # type: ignore[arg-type]
    assert latents.shape == (5, 8, 32, 32)
    assert (np.diff(latents[:, 4, 0, 0]) > 0).all()
    assert vae.asked == [10, 8, 4, 4, 2]


def test_a_gpu_that_holds_not_even_one_face_is_an_error() -> None:
    with pytest.raises(GpuserverError, match="memory is full"):
        FaceEncoder(CrampedVae(most=1))(np.zeros((1, 256, 256, 3), np.uint8))  # type: ignore[arg-type]


def test_a_vae_that_makes_no_numbers_is_damaged() -> None:
    vae = CrampedVae(most=16)
    vae.scale.fill_(float("nan"))
    with pytest.raises(WeightsDamaged):
        FaceEncoder(vae)(np.zeros((1, 256, 256, 3), np.uint8))  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is made of an avatar


def test_every_frame_gets_its_latent_its_box_and_a_mask_inside_it(avatar: Avatar) -> None:
    faces = list(latent_faces(avatar, JAW, fake_encode))
    boxes = mesh_boxes(np.stack([f.landmarks for f in avatar.frames]), [f.face for f in avatar.frames], avatar.width, avatar.height)
    assert [face.box for face in faces] == boxes
    for face in faces:
        assert face.mask.shape == (face.mask_box.height, face.mask_box.width)
        assert face.mask.max() == 255
        assert face.box.left - 1 <= face.mask_box.left < face.mask_box.right <= face.box.right + 1
        assert face.mask_box.height < 0.7 * face.box.height


def test_the_parsers_map_decides_where_the_face_shows_and_the_landmarks_where_it_finds_nothing(avatar: Avatar) -> None:
    def all_skin(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.full((512, 512), SKIN, np.uint8)

    def nothing(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.zeros((512, 512), np.uint8)

    parsed, unseen, drawn = (next(iter(latent_faces(avatar, JAW, fake_encode, parse))) for parse in (all_skin, nothing, None))
    assert parsed.mask.mean() > 1.3 * drawn.mask.mean()
    np.testing.assert_array_equal(unseen.mask, drawn.mask)
    assert soft_mask(np.full((150, 150), 255, np.uint8), Box(0, 0, 100, 100)).max() == 255


def test_v10s_shift_moves_the_box(avatar: Avatar) -> None:
    old = JAW.model_copy(update={"version": "V1.0", "mask": "raw", "extra_margin": 0, "bbox_shift": 6})
    shifted, usual = (next(iter(latent_faces(avatar, how, fake_encode))) for how in (old, JAW))
    assert shifted.box.top > usual.box.top
    assert shifted.box.bottom == usual.box.bottom - 10


# ---------------------------------------------------------------- the child process


def request(small: Path, tmp_path: Path, base: str = "fine", **more: Any) -> LatentRequest:
    folder = tmp_path / "latents"
    folder.mkdir()
    return LatentRequest.model_validate({"avatar": small, "folder": folder, "base": tmp_path / base, "preparation": JAW, **more})


def run(asked: LatentRequest, watch: Watch | None = None, wall_seconds: float = 120) -> None:
    run_latent_preparation(asked, 5, watch, module="fake_latent_child", wall_seconds=wall_seconds)


@pytest.fixture(autouse=True)
def children_find_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def test_the_child_fills_the_folder_and_says_how_far_it_is(small: Path, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    asked = request(small, tmp_path, "prints")
    run(asked, Watch(lambda stage, part: told.append((stage, part))))
    assert {stage for stage, _ in told} == {"latents"}
    assert told[-1][1] == 1
    assert read_preparation(asked.folder) == JAW
    assert all(frame.generated is not None for frame in with_latents(load_avatar(small), asked.folder).frames)


def test_known_failures_are_told_as_such(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WeightsDamaged, match="cut off") as damaged:
        run(request(small, tmp_path, "damaged"))
    assert damaged.value.advice == "Get it again."
    (tmp_path / "latents").rmdir()
    with pytest.raises(GpuserverError, match="needs torch") as lacking:
        run(request(small, tmp_path, "without-torch"))
    assert "gpuserver[musetalk]" in lacking.value.advice


def test_a_defect_of_the_child_is_logged(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GpuserverError, match="MuseTalk failed"):
        run(request(small, tmp_path, "defect"))
    assert "RuntimeError: oh" in caplog.text


@pytest.mark.parametrize(
    ("more", "error"),
    [({"most_bytes": 100}, AvatarRoomFull), ({"margin_bytes": 1 << 60}, DiskFull), ({"avatar": TESTS}, GpuserverError)],
)
def test_no_room_and_no_avatar_are_told(small: Path, tmp_path: Path, more: dict[str, Any], error: type[GpuserverError]) -> None:
    with pytest.raises(error):
        run(request(small, tmp_path, **more))


def test_the_real_child_says_which_weights_are_missing(small: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="sd-vae"):
        run_latent_preparation(request(small, tmp_path, device="cpu"), 5)


def test_cancel_ends_the_child(small: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        run(request(small, tmp_path, "hangs"), Watch(lambda stage, part: cancel.set(), cancel=cancel))


def test_a_child_that_hangs_is_ended(small: Path, tmp_path: Path) -> None:
    with pytest.raises(GpuserverError, match="too long"):
        run(request(small, tmp_path, "hangs"), wall_seconds=0.5)


def test_a_damaged_avatar_is_told(small: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for file in small.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "copy" / "landmarks.npy").unlink()
    with pytest.raises(AvatarDamaged):
        run(request(tmp_path / "copy", tmp_path))
