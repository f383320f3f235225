"""Fused steps of the networks give what the plain ones give, in the precision of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from gpuserver.musetalk.networks.fusion import Fusion, Operations, PlainOperations, Upsampling, forget, fuse
from gpuserver.musetalk.networks.inference import prepare_for_inference
from gpuserver.musetalk.networks.resnet import GroupNorm, ResnetBlock, Upsampler
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.neural.face_painter import FaceNetwork
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights

WAYS = [Upsampling.TRANSPOSED, Upsampling.INTERLEAVED]
FUSIONS = [Fusion(PlainOperations()), *(Fusion(PlainOperations(), way) for way in WAYS)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def networks() -> tuple[UNet, Vae]:
    unet = prepare_for_inference(formula_weights(UNet(UNetConfig((32, 32, 32, 32), 64)), "unet:"))
    return unet, formula_weights(Vae(VaeConfig((32, 32, 32, 32))), "vae:")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return numbers(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


def norm_of(channels: int) -> GroupNorm:
    norm = GroupNorm(32, channels)
    norm.weight.copy_(numbers(channels, seed=1))
    norm.bias.copy_(numbers(channels, seed=2))
    return norm


def off(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def check_norm(operations: Operations, shape: tuple[int, ...], mean: float) -> None:
    """mean: of the pixels, whose deviation is 1."""
    norm, picture, bias = norm_of(shape[1]), pixels(*shape) + mean, numbers(shape[1], seed=3)
    exact = deepcopy(norm).double()
    fused = operations.norm(norm, picture, bias, activate=True)
    assert off(fused, nn.functional.silu(exact((picture + bias[:, None, None]).double()))) < 1e-4
    assert fused.is_contiguous(memory_format=torch.channels_last)
    assert off(operations.norm(norm, picture, None, activate=False), exact(picture.double())) < 1e-4


@pytest.mark.parametrize("mean", [0, 100])
def test_a_fused_norm_adds_the_bias_and_activates(mean: float) -> None:
    check_norm(PlainOperations(), (2, 64, 8, 8), mean)


def test_a_fused_sum_adds_the_bias() -> None:
    one, other, bias = pixels(2, 32, 8, 8), pixels(2, 32, 8, 8, seed=1), numbers(32)
    expected = one + other + bias[:, None, None]
    assert off(PlainOperations().add(one.clone(), other, bias), expected) < 1e-6


@pytest.mark.parametrize("widths", [(32, 32), (64, 32)], ids=["same width", "another width"])
def test_a_residual_block_is_the_same_fused(widths: tuple[int, int]) -> None:
    block = formula_weights(ResnetBlock(*widths, groups=32, eps=1e-6), "block:")
    picture = pixels(2, widths[0], 8, 8)
    expected = block(picture)
    fuse(block, Fusion(PlainOperations()))
    assert off(block(picture), expected) < 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_one_convolution_repeats_and_convolves_up_to_the_edges(size: tuple[int, int], way: Upsampling) -> None:
    upsampler = formula_weights(Upsampler(32), "upsampler:")
    picture = pixels(2, 32, *size)
    expected = upsampler(picture)
    fuse(upsampler, Fusion(upsampling=way))
    assert off(upsampler(picture), expected) < 1e-5
    fuse(upsampler, Fusion())
    assert torch.equal(upsampler(picture), expected)


def test_what_a_recording_reads_stays_where_it_is_whatever_is_tried_afterwards() -> None:
    """A CUDA graph knows addresses; memory that is given back while it is replayed would be somebody else's."""
    block = formula_weights(ResnetBlock(32, 32, groups=32, eps=1e-6), "block:")
    upsampler = formula_weights(Upsampler(32), "upsampler:")
    both = nn.Sequential(block, upsampler)
    fuse(both, FUSIONS[1])
    assert block.last_bias is not None
    addresses = block.last_bias.data_ptr(), upsampler.weights[Upsampling.TRANSPOSED].data_ptr()
    for fusion in (Fusion(), *FUSIONS):
        fuse(both, fusion)
        assert (block.last_bias.data_ptr(), upsampler.weights[Upsampling.TRANSPOSED].data_ptr()) == addresses


def test_weights_of_ways_that_were_not_chosen_are_given_back() -> None:
    upsampler = formula_weights(Upsampler(32), "upsampler:")
    for way in WAYS:
        fuse(upsampler, Fusion(upsampling=way))
    fuse(upsampler, Fusion(upsampling=Upsampling.TRANSPOSED))
    forget(upsampler)
    assert list(upsampler.weights) == [Upsampling.TRANSPOSED]


@pytest.mark.parametrize("fusion", FUSIONS, ids=["norms", "transposed", "interleaved"])
def test_the_faces_of_fused_networks_are_those_of_plain_ones(networks: tuple[UNet, Vae], fusion: Fusion) -> None:
    network = FaceNetwork(*networks)
    latents, rows = numbers(1, 8, 32, 32), numbers(1, 50, 64, seed=1)
    plain, _ = network(latents, rows)
    network.fuse(fusion)
    fused, usable = network(latents, rows)
    network.fuse(Fusion())
    assert off(fused, plain) <= 1
    assert usable.all()


def test_a_network_whose_time_is_not_folded_is_not_fused() -> None:
    with torch.device("meta"):
        unet = UNet(UNetConfig.tiny())
    with pytest.raises(ValueError, match="time"):
        fuse(unet, Fusion(PlainOperations()))
