"""Golden data of the whole way: from sound and picture to hidden states, latents, decoded faces and the blended picture."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpuserver.domain import Floats
from gpuserver.musetalk.golden.faces import box_of, class_map, pictures
from gpuserver.musetalk.golden.files import Array, GoldenFile, GoldenFolder, mean_difference
from gpuserver.musetalk.golden.networks import FULL, TINY
from gpuserver.musetalk.golden.overheard import Overheard
from gpuserver.musetalk.golden.sound import sound_of, synthetic_sound
from gpuserver.musetalk.networks.inference import HALF_RANGE, prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import SCALING_FACTOR, Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.blending import blend, fitted_mask, parsing_mask, soft_mask
from gpuserver.musetalk.neural.face_painter import FaceNetwork
from gpuserver.musetalk.neural.whisper_ear import WhisperEar
from gpuserver.musetalk.neural.whisper_features import SEGMENT_STEPS, feature_rows, log_mel, positional_encoding
from gpuserver.musetalk.preparing.face_encoder import FaceEncoder
from gpuserver.musetalk.preparing.latent_preparation import face_crop
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights

HIDDEN = 1e-3
LATENTS = 2e-3
DECODED = 2e-3  # of -1..1, a quarter of a level
LEVELS, MEAN_LEVELS = 2, 0.1

_FIRST_STEPS = re.compile(r"hidden_first(?P<steps>\d+)")
_SAMPLED = re.compile(r"latents_sampled_seed(?P<seed>\d+)")
_DRAWN = ("pred_latents", "decoded_raw_f16", "recon_bgr_u8", "blend_rt_last")


def check_pipeline(file: GoldenFile, folder: GoldenFolder) -> None:
    """The file's name says whether the networks are tiny or full. Every array may be missing; what only it needs is not computed."""
    sizes = TINY if "tiny" in file.name else FULL
    rows = _check_sound(file, folder, sizes.whisper)
    vae = formula_weights(ListeningVae(sizes.vae), "vae:")
    latents = _check_latents(file, folder, vae)
    if any(name in file for name in _DRAWN):
        _check_drawn(file, folder, FaceNetwork(_unet(sizes.unet), vae), latents, rows)


# ---------------------------------------------------------------- sound


def _check_sound(file: GoldenFile, folder: GoldenFolder, config: WhisperConfig) -> Floats:
    """The rows of all frames, float32 [n, 50, width]."""
    ear = WhisperEar(formula_weights(WhisperEncoder(config), "whisper.encoder:"))
    sound = sound_of(_pcm(file, folder))
    for name in file.arrays:
        if match := _FIRST_STEPS.fullmatch(name):
            file.compare(name, ear.steps(log_mel(sound), 0, int(match["steps"])), HIDDEN)
    rows = _rows(sound, ear)
    file.compare("n_chunks", rows.shape, tolerance=0)
    if "chunk_sel" in file:
        chosen = rows[file.use("chunk_sel")]
        file.compare("chunks", chosen, HIDDEN)
        file.compare("chunks_pe", chosen + positional_encoding(config.channels), HIDDEN)
    if "border_frames" in file or "border_n" in file:
        _check_border(file, ear)
    return rows


def _check_border(file: GoldenFile, ear: WhisperEar) -> None:
    """A sound that is longer than the 30 s that Whisper hears at a time."""
    rows = _rows(sound_of(synthetic_sound(31.5, seed=9)), ear)
    file.compare("border_n", rows.shape, tolerance=0)
    if "border_frames" in file:
        file.compare("border_chunks", rows[file.use("border_frames")], HIDDEN)


def _rows(sound: Floats, ear: WhisperEar) -> Floats:
    return np.stack(list(feature_rows(sound, lambda mel: ear.steps(mel[0], 0, SEGMENT_STEPS)[None])))


def _pcm(file: GoldenFile, folder: GoldenFolder) -> Array:
    if "pcm" in file:
        return file.use("pcm")
    found = folder.array("mel", "pcm", file)
    return synthetic_sound(3.2) if found is None else found


# ---------------------------------------------------------------- face


class ListeningVae(Vae):
    """Remembers mean and deviation of all that it encodes, which the product does not keep."""

    def __init__(self, config: VaeConfig):
        super().__init__(config)
        self.encoded: list[tuple[Tensor, Tensor]] = []

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded.append(super().encode(images))
        return self.encoded[-1]


def _check_latents(file: GoldenFile, folder: GoldenFolder, vae: ListeningVae) -> Tensor | None:
    """The face's latents, float32 [1, 8, 32, 32]; the file's own where there is no picture to make them of."""
    crop = _check_crop(file, folder)
    if crop is None:
        return torch.from_numpy(file.use("latents_mode")) if "latents_mode" in file else None
    file.compare("latents_mode", FaceEncoder(vae)(crop[None, :, :, ::-1]), LATENTS)
    mean, deviation = vae.encoded[0]
    for index, part in enumerate(("masked", "ref")):
        file.compare(f"enc_{part}_mean", mean[index][None].numpy(), LATENTS)
        file.compare(f"enc_{part}_std", deviation[index][None].numpy(), LATENTS)
    for name in file.arrays:
        if match := _SAMPLED.fullmatch(name):
            dice = torch.Generator().manual_seed(int(match["seed"]))
            sampled = [mean[index] + deviation[index] * torch.randn(1, *mean.shape[1:], generator=dice) for index in range(2)]
            file.compare(name, (torch.cat(sampled, dim=1) * SCALING_FACTOR).numpy(), LATENTS)
    return torch.cat(mean.chunk(2), dim=1) * SCALING_FACTOR


def _check_crop(file: GoldenFile, folder: GoldenFolder) -> NDArray[np.uint8] | None:
    """The face as the VAE sees it, BGR [256, 256, 3]; the file's own where there is no picture."""
    frame = _frame(file, folder)
    if frame is not None and "bbox_v15" in file:
        crop = face_crop(frame, box_of(file.use("bbox_v15")))
        file.compare("crop256_bgr", crop, tolerance=0)
        return crop
    return pictures(file.use("crop256_bgr")) if "crop256_bgr" in file else None


def _frame(file: GoldenFile, folder: GoldenFolder) -> NDArray[np.uint8] | None:
    if "frame0" in file:
        return pictures(file.use("frame0"))
    found = folder.array("blending", "frame0", file)
    found = folder.array("bisenet", "frame0_bgr", file) if found is None else found
    return None if found is None else pictures(found)


# ---------------------------------------------------------------- drawn


def _check_drawn(file: GoldenFile, folder: GoldenFolder, network: FaceNetwork, latents: Tensor | None, rows: Floats) -> None:
    """What the network that serves makes of them, frame after frame."""
    if latents is None or "gen_frames" not in file:
        raise ValueError("latents and gen_frames, of which the drawn faces are made, are missing")
    faces = []
    with Overheard(network.unet) as drawn, Overheard(network.decoder.last) as decoded, torch.inference_mode():
        for frame in file.use("gen_frames").tolist():
            face, _ = network(latents, torch.from_numpy(rows[frame][None]))
            faces.append(face.numpy())
    ours = np.concatenate(faces)
    file.compare("pred_latents", torch.cat(drawn.outputs).numpy(), LATENTS)
    file.compare("decoded_raw_f16", (torch.cat(decoded.outputs) / HALF_RANGE - 1).numpy(), DECODED)
    file.compare("recon_bgr_u8", ours, LEVELS)
    if "recon_bgr_u8" in file:
        file.note("recon_bgr_u8 (mean)", mean_difference(ours, file.use("recon_bgr_u8")), MEAN_LEVELS)
    if "blend_rt_last" in file:
        _check_blend(file, folder, ours[-1])


def _check_blend(file: GoldenFile, folder: GoldenFolder, ours: NDArray[np.uint8]) -> None:
    """The last face in its picture: exact for the golden face, with the tolerance of a face for our own."""
    frame = _frame(file, folder)
    if frame is None:
        raise ValueError("there is no blending.npz with the picture that the face is blended into")
    face, tolerance = (pictures(file.use("recon_bgr_u8"))[-1], 0) if "recon_bgr_u8" in file else (ours, LEVELS)
    box = box_of(file.use("bbox_v15"))
    mask = soft_mask(fitted_mask(parsing_mask(class_map(file, folder), "jaw"), box), box)
    file.compare("blend_rt_last", blend(frame, face, box, mask), tolerance)


def _unet(config: UNetConfig) -> UNet:
    """As it serves: with everything folded."""
    with torch.device("meta"):
        unet = UNet(config)
    return prepare_for_inference(formula_weights(unet, "unet:"))
