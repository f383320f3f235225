"""The four networks: the official names and shapes, the numbers that MuseTalk's own code computes, and the same with less work."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from golden_data import GOLDEN, golden_array, latents_of_frames, sound_of_frames
from torch import Tensor, nn

from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.inference import PictureDecoder, StackedAttention, channels_last, prepare_for_inference, to_bytes
from gpuserver.musetalk.networks.resnet import GroupNorm, ResnetBlock
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights, random_weights

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet_tiny": lambda: UNet(UNetConfig.tiny()),
    "unet_full": lambda: UNet(UNetConfig.official()),
    "vae_tiny": lambda: Vae(VaeConfig.tiny()),
    "vae_full": lambda: Vae(VaeConfig.official()),
    "whisper_encoder_tiny": lambda: WhisperEncoder(WhisperConfig.tiny()),
    "whisper_encoder_full": lambda: WhisperEncoder(WhisperConfig.official()),
    "bisenet": BiSeNet,
}
MANIFEST: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress((GOLDEN / "state_dict_manifest.json.gz").read_bytes()))


@pytest.fixture(autouse=True)
def one_thread_and_no_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def unet() -> UNet:
    return formula_weights(UNet(UNetConfig.tiny()), "unet:")


@pytest.fixture
def vae() -> Vae:
    return formula_weights(Vae(VaeConfig.tiny()), "vae:")


def largest_difference(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().max().item()


def levels(images: Tensor) -> Tensor:
    """Pictures in -1..1 as upstream turns them into bytes."""
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def psnr(one: Tensor, other: Tensor) -> float:
    return 10 * torch.log10(255**2 / (one.float() - other.float()).square().mean()).item()


def test_the_manifest_knows_our_networks_and_no_other() -> None:
    assert MANIFEST.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_official_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == MANIFEST[name]


def test_the_unet_draws_the_official_latents(unet: UNet) -> None:
    drawn = unet(latents_of_frames(), sound_of_frames())
    assert largest_difference(drawn, golden_array("pipeline_tiny.npz", "pred_latents")) < 1e-4


def test_each_frame_of_a_batch_is_drawn_by_itself(unet: UNet) -> None:
    together = unet(latents_of_frames(), sound_of_frames())
    alone = unet(latents_of_frames()[1:2], sound_of_frames()[1:2])
    assert largest_difference(together[1:2], alone) < 1e-4


def test_another_sound_draws_another_mouth(unet: UNet) -> None:
    first, second, _ = unet(latents_of_frames(), sound_of_frames())
    assert largest_difference(first, second) > 0.01


def test_the_vae_decodes_the_official_pictures(vae: Vae) -> None:
    decoded = levels(vae.decode(golden_array("pipeline_tiny.npz", "pred_latents")))
    official = golden_array("pipeline_tiny.npz", "recon_bgr_u8").flip(-1).permute(0, 3, 1, 2)
    assert largest_difference(decoded, official) <= 1


def test_the_vae_encodes_mean_and_deviation(vae: Vae) -> None:
    crop = golden_array("pipeline_tiny.npz", "crop256_bgr").flip(-1).permute(2, 0, 1)[None]
    mean, deviation = vae.encode(crop / 127.5 - 1)
    assert largest_difference(mean, golden_array("pipeline_tiny.npz", "enc_ref_mean")) < 2e-3
    assert largest_difference(deviation, golden_array("pipeline_tiny.npz", "enc_ref_std")) < 2e-3


def test_whisper_gives_every_layer_of_every_step() -> None:
    whisper = formula_weights(WhisperEncoder(WhisperConfig.tiny()), "whisper.encoder:")
    assert whisper(torch.zeros(2, 80, 3000)).shape == (2, 1500, 5, 64)


def test_bisenet_scores_every_class_at_every_pixel() -> None:
    bisenet = formula_weights(BiSeNet(), "bisenet:")
    assert bisenet(torch.zeros(1, 3, 64, 96)).shape == (1, 19, 64, 96)


# ---------------------------------------------------------------- less work, same result


def test_the_prepared_unet_draws_what_the_plain_one_draws(unet: UNet) -> None:
    prepared = prepare_for_inference(deepcopy(unet))
    plain = unet(latents_of_frames(), sound_of_frames())
    assert largest_difference(prepared(latents_of_frames(), sound_of_frames()), plain) < 1e-4


def test_the_prepared_unet_knows_no_time_any_more(unet: UNet) -> None:
    blocks = [module for module in prepare_for_inference(unet).modules() if isinstance(module, ResnetBlock)]
    assert len(blocks) == 22
    assert unet.time_embedding is None
    assert all(block.time_emb_proj is None for block in blocks)


def test_the_prepared_unet_projects_the_sound_once_and_its_own_tokens_once_a_layer(unet: UNet) -> None:
    products: list[tuple[int, int]] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Linear):
            products.append((module.in_features, module.out_features))

    prepare_for_inference(unet)
    for module in unet.modules():
        module.register_forward_hook(note)
    unet(latents_of_frames()[:1], sound_of_frames()[:1])
    assert products[0] == (64, 2 * (5 * 32 + 11 * 64))  # keys and values of 16 layers
    assert sum(isinstance(module, StackedAttention) for module in unet.modules()) == 16
    assert len(products) == 1 + 16 * 6  # q k v | out | q of the sound | out | two of the feed-forward


def test_preparing_twice_is_refused(unet: UNet) -> None:
    with pytest.raises(ValueError, match="already"):
        prepare_for_inference(prepare_for_inference(unet))


def test_the_picture_decoder_gives_the_bytes_of_the_plain_vae(vae: Vae) -> None:
    latents = golden_array("pipeline_tiny.npz", "pred_latents")
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    pictures = PictureDecoder(vae)(latents)
    assert pictures.dtype == torch.uint8
    assert largest_difference(pictures, levels(vae.decode(latents))) <= 1
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


def test_levels_are_rounded_to_even_and_limited() -> None:
    assert to_bytes(torch.tensor([-3.0, 0.5, 1.5, 254.6, 300.0])).tolist() == [0, 0, 2, 255, 255]


def test_a_group_of_almost_equal_numbers_is_normalised_wherever_the_channels_lie() -> None:
    numbers = torch.randn(1, 64, 32, 32, generator=torch.Generator().manual_seed(0)) / 100 + 10
    norm = GroupNorm(32, 64)
    side_by_side = numbers.contiguous(memory_format=torch.channels_last)
    assert largest_difference(norm(side_by_side), norm.double()(numbers.double())) < 1e-2


def test_a_half_black_face_is_encoded_exactly_with_channels_side_by_side(vae: Vae) -> None:
    crop = golden_array("pipeline_tiny.npz", "crop256_bgr").flip(-1).permute(2, 0, 1)[None]
    masked = crop / 127.5 - 1
    masked[:, :, 128:] = -1
    mean, _ = vae.encode(masked.contiguous(memory_format=torch.channels_last))
    assert largest_difference(mean, golden_array("pipeline_tiny.npz", "enc_masked_mean")) < 2e-3


def test_pixels_may_lie_side_by_side_in_memory(unet: UNet, vae: Vae) -> None:
    drawn = prepare_for_inference(deepcopy(unet))(latents_of_frames()[:1], sound_of_frames()[:1])
    turned = channels_last(prepare_for_inference(unet))
    latents = turned(latents_of_frames()[:1].to(memory_format=torch.channels_last), sound_of_frames()[:1])
    assert largest_difference(latents, drawn) < 1e-4
    pictures = PictureDecoder(vae)(drawn)
    assert largest_difference(channels_last(PictureDecoder(vae))(latents), pictures) <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_the_precision_is_enough_for_a_picture(unet: UNet, vae: Vae, dtype: torch.dtype) -> None:
    latents, sound = latents_of_frames()[:1], sound_of_frames()[:1]
    exact = levels(vae.decode(unet(latents, sound)))
    drawn = prepare_for_inference(unet).to(dtype)(latents.to(dtype), sound.to(dtype))
    assert psnr(PictureDecoder(vae.to(dtype))(drawn), exact) > 35


def test_random_weights_are_made_in_place_and_repeatable() -> None:
    def network(seed: int) -> UNet:
        with torch.device("meta"):
            unet = UNet(UNetConfig.tiny())
        return random_weights(unet, seed, dtype=torch.bfloat16)

    first = network(seed=1)
    assert all(tensor.device.type == "cpu" and tensor.dtype is torch.bfloat16 for tensor in first.state_dict().values())
    assert torch.equal(first.conv_in.weight, network(seed=1).conv_in.weight)
    assert not torch.equal(first.conv_in.weight, network(seed=2).conv_in.weight)
    assert first(latents_of_frames().bfloat16(), sound_of_frames().bfloat16()).isfinite().all()
