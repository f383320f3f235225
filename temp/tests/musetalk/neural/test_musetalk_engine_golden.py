"""The engine's whole way, from sound and latent to the picture, against what upstream's code computed with the same tiny weights."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from golden_data import golden_array

from gpuserver.domain import AvatarFrame, Box, Generation, LatentFace, MouthJob, Speech
from gpuserver.musetalk.networks.inference import prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.blending import crop_box, intersection, window
from gpuserver.musetalk.neural.face_painter import CpuPainter, FaceNetwork, Order
from gpuserver.musetalk.neural.face_paste import cut, paste
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine, make_musetalk_engine
from gpuserver.musetalk.rendering.compositor import compose, planes
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights

FRAMES = golden_array("pipeline_tiny.npz", "gen_frames").tolist()
BOX = Box(*golden_array("pipeline_tiny.npz", "bbox_v15").tolist())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unet() -> UNet:
    return formula_weights(UNet(UNetConfig.tiny()), "unet:")


def vae() -> Vae:
    return formula_weights(Vae(VaeConfig.tiny()), "vae:")


@pytest.fixture
def engine() -> MuseTalkEngine:
    return make_musetalk_engine(unet(), vae(), formula_weights(WhisperEncoder(WhisperConfig.tiny()), "whisper.encoder:"), max_batch=4)


def picture_of(bgr: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420))


def even_box(box: Box) -> Box:
    return Box(box.left & ~1, box.top & ~1, (box.right + 1) & ~1, (box.bottom + 1) & ~1)


def latent_face(latent: np.ndarray, mask: np.ndarray, box: Box) -> LatentFace:
    """What shows of a mask over the crop box: the face box, rounded to even pixels."""
    shown = np.zeros((320, 320), np.uint8)
    seen = intersection(box, Box(0, 0, 320, 320))
    shown[window(seen)] = mask[window(seen, crop_box(box))]
    mask_box = even_box(seen)
    return LatentFace(latent.astype(np.float16), box, shown[window(mask_box)], mask_box)


def prepared_frame(bgr: np.ndarray) -> AvatarFrame:
    """The golden frame as an avatar's, prepared in jaw mode."""
    latent = golden_array("pipeline_tiny.npz", "latents_mode")[0].numpy()
    face = latent_face(latent, golden_array("blending.npz", "center_jaw_mask").numpy(), BOX)
    return AvatarFrame(0, picture_of(bgr), np.zeros((468, 2), np.float32), BOX, 0.0, face)


def rows_of_the_sound(engine: MuseTalkEngine) -> np.ndarray:
    pcm = golden_array("mel.npz", "pcm").numpy()
    listener = engine.listener()
    return np.concatenate([listener.hear(Speech(pcm, 16_000, "")), listener.finish()])


def test_the_listener_hears_what_upstream_hears(engine: MuseTalkEngine) -> None:
    chosen = golden_array("pipeline_tiny.npz", "chunk_sel").tolist()
    rows = rows_of_the_sound(engine)
    assert len(rows) == 80
    np.testing.assert_allclose(rows[chosen], golden_array("pipeline_tiny.npz", "chunks").numpy(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("prepared", [False, True])
def test_the_painted_faces_are_upstreams(prepared: bool) -> None:
    network = FaceNetwork(prepare_for_inference(unet()) if prepared else unet(), vae())
    latent = golden_array("pipeline_tiny.npz", "latents_mode")[0].numpy().astype(np.float16)
    chosen = golden_array("pipeline_tiny.npz", "chunk_sel").tolist()
    rows = golden_array("pipeline_tiny.npz", "chunks").numpy()[[chosen.index(frame) for frame in FRAMES]]
    faces = CpuPainter(network, max_batch=4).begin([Order(latent, row) for row in rows])()
    difference = np.abs(faces.pictures.astype(int) - golden_array("pipeline_tiny.npz", "recon_bgr_u8").numpy())
    assert faces.usable.all()
    assert difference.max() <= 2
    assert difference.mean() < 0.1


def test_the_picture_is_upstreams_but_for_rounding(engine: MuseTalkEngine) -> None:
    """Upstream mixes in BGR, we in YUV."""
    source = golden_array("blending.npz", "frame0").numpy()
    expected = golden_array("pipeline_tiny.npz", "blend_rt_last").numpy()
    frame = prepared_frame(source)
    (crop,) = engine.render([MouthJob(frame, rows_of_the_sound(engine)[FRAMES[-1]], 0.0, Generation(1))])
    drawn = compose(frame, crop)
    for one, other in zip(planes(drawn), planes(picture_of(expected)), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2
    assert np.mean(drawn != picture_of(expected)) < 0.02


@pytest.mark.parametrize("place", ["center", "odd"])
@pytest.mark.parametrize("mode", ["raw", "jaw"])
def test_a_pasted_face_is_upstreams_but_for_rounding(place: str, mode: str) -> None:
    source, face = (golden_array("blending.npz", name).numpy() for name in ("frame0", "face256"))
    box = Box(*golden_array("blending.npz", f"{place}_{mode}_box").tolist())
    generated = latent_face(np.zeros((8, 32, 32)), golden_array("blending.npz", f"{place}_{mode}_mask").numpy(), box)
    frame = AvatarFrame(0, picture_of(source), np.zeros((468, 2), np.float32), box, 0.0, generated)
    drawn = planes(compose(frame, paste(face, frame, generated)))
    wanted = planes(picture_of(golden_array("blending.npz", f"{place}_{mode}_rt").numpy()))
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(drawn, wanted, strict=True)) <= 2


def test_what_the_mask_leaves_out_stays_the_sources_bit_by_bit() -> None:
    frame = prepared_frame(golden_array("blending.npz", "frame0").numpy())
    face = frame.generated
    assert face is not None
    crop = paste(np.full((256, 256, 3), 255, np.uint8), frame, face)
    for drawn, source, step in zip((crop.y, crop.u, crop.v), planes(frame.picture), (1, 2, 2), strict=True):
        kept = source[face.mask_box.top // step : face.mask_box.bottom // step, face.mask_box.left // step : face.mask_box.right // step]
        mask = face.mask[::step, ::step]
        assert np.array_equal(drawn[mask == 0], kept[mask == 0])
        assert (drawn[mask == 255] != kept[mask == 255]).any()


def test_a_mask_box_beyond_the_face_box_repeats_its_border() -> None:
    sized = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    wider = cut(sized, Box(11, 21, 17, 25), Box(10, 20, 18, 26))
    assert np.array_equal(wider[1:5, 1:7], sized)
    assert np.array_equal(wider[0], wider[1])
    assert np.array_equal(wider[:, 0], wider[:, 1])
    assert np.array_equal(wider[5], wider[4])
