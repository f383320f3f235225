"""What a CUDA graph records may not look at its own numbers, and its cost is known: the full-size networks, traced without any memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gpuserver.musetalk.networks.fusion import Fusion, Upsampling
from gpuserver.musetalk.networks.inference import prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.neural.face_painter import FaceNetwork

BATCH = 8

# What makes the processor wait for the device, or its launches depend on what the device computed.
WAITING = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "pin_memory",
}


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails as a recording on a GPU does: at whatever waits, comes from the host or goes there. Counts what is launched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()  # by name; what only looks at memory in another way is none

    def __torch_dispatch__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        result = function(*args, **(kwargs or {}))
        for tensor in (*args, *(kwargs or {}).values(), result):
            if isinstance(tensor, Tensor) and tensor.dim():
                assert tensor.device.type == "meta", f"{name} copies between host and device"
        views = any(each.alias_info is not None and not each.alias_info.is_write for each in function._schema.returns)
        self.launches[name] += not views
        return result


class Shapes:
    """Implements Operations where only shapes count."""

    def norm(self, norm: nn.GroupNorm, pixels: Tensor, bias: Tensor | None, *, activate: bool) -> Tensor:
        return torch.empty_like(pixels)

    def add(self, pixels: Tensor, others: Tensor, bias: Tensor) -> Tensor:
        return pixels.add_(others)


@pytest.fixture(scope="module")
def network() -> FaceNetwork:
    with torch.device("meta"):
        unet, vae = UNet(UNetConfig.official()), Vae(VaeConfig.official())
    for each in (unet, vae):
        each.half().eval().requires_grad_(requires_grad=False)
    return FaceNetwork(prepare_for_inference(unet), vae)


def on_device(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def drawing(network: FaceNetwork) -> Callable[[], tuple[Tensor, Tensor]]:
    latents, rows = on_device(BATCH, 8, 32, 32), on_device(BATCH, 50, 384, dtype=torch.float32)
    return lambda: network(latents, rows)


def gflop_per_face(network: FaceNetwork, fusion: Fusion) -> float:
    network.fuse(fusion)
    draw = drawing(network)
    with torch.no_grad(), Recording():
        pictures, usable = draw()
    assert (pictures.shape, pictures.dtype) == ((BATCH, 256, 256, 3), torch.uint8)
    assert (usable.shape, usable.dtype) == ((BATCH,), torch.bool)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        draw()
    return float(counted.get_total_flops()) / BATCH / 1e9


def test_a_recording_fails_at_whatever_waits_for_the_device() -> None:
    with pytest.raises(AssertionError, match="waits"), Recording():
        float(torch.ones(()))
    with pytest.raises(AssertionError, match="host"), Recording():
        on_device(2).copy_(torch.ones(2))


def test_drawing_waits_for_nothing_and_costs_800_gflop_a_face(network: FaceNetwork) -> None:
    assert gflop_per_face(network, Fusion()) == pytest.approx(800.0, abs=0.1)


@pytest.mark.parametrize(("way", "gflop"), [(Upsampling.TRANSPOSED, 693.9), (Upsampling.INTERLEAVED, 697.8)])
def test_upsampling_within_convolutions_saves_an_eighth(network: FaceNetwork, way: Upsampling, gflop: float) -> None:
    assert gflop_per_face(network, Fusion(upsampling=way)) == pytest.approx(gflop, abs=0.1)


def test_every_norm_and_activation_of_both_networks_is_one_of_our_kernels(network: FaceNetwork) -> None:
    network.fuse(Fusion(Shapes()))
    with torch.no_grad(), Recording() as recording:
        drawing(network)()
    assert not {"native_group_norm", "silu"} & set(recording.launches)
    assert recording.launches["convolution"] == 134


def test_hearing_waits_for_nothing_and_costs_37_gflop_for_30_seconds() -> None:
    with torch.device("meta"):
        whisper = WhisperEncoder(WhisperConfig.official())
    whisper.half().requires_grad_(requires_grad=False)
    mel = on_device(1, 80, 3000)
    with torch.no_grad(), Recording():
        whisper(mel)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        whisper(mel)
    assert counted.get_total_flops() / 1e9 == pytest.approx(36.9, abs=0.1)
