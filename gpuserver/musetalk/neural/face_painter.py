"""From latents and sound to faces in bytes: UNet and decoder as one function, and who runs it on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpuserver.domain import Floats
from gpuserver.musetalk.networks.fusion import Fusion, forget, fuse
from gpuserver.musetalk.networks.inference import PictureDecoder, channels_last, to_bytes
from gpuserver.musetalk.networks.unet import UNet
from gpuserver.musetalk.networks.vae import Vae
from gpuserver.musetalk.neural.whisper_features import TOKENS, positional_encoding


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """One face to paint. latent: float16 [8, 32, 32]. row: float32 [50, width], without positions."""

    latent: NDArray[np.float16]
    row: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """pictures: uint8 [n, 256, 256, 3], BGR. usable: bool [n], False where the network's numbers are not finite."""

    pictures: NDArray[np.uint8]
    usable: NDArray[np.bool_]


class Painter(Protocol):
    """Runs the networks on a device."""

    @property
    def max_batch(self) -> int: ...

    @property
    def remarks(self) -> Sequence[str]:
        """What warm_up() found, for the log."""
        ...

    def begin(self, orders: Sequence[Order]) -> Callable[[], Faces]:
        """Give the device up to max_batch faces and return at once; the result waits for them. May be called from any thread.

        Both raise torch.OutOfMemoryError and DeviceLost.
        """
        ...

    def warm_up(self) -> None:
        """Do what the first calls would have to wait for. Raises as begin()."""
        ...


class FaceNetwork(nn.Module):
    """forward(): latents float16 [B, 8, 32, 32], rows float32 [B, 50, width] -> BGR uint8 [B, 256, 256, 3], usable bool [B]."""

    positions: Tensor

    def __init__(self, unet: UNet, vae: Vae, layout: torch.memory_format = torch.channels_last):
        """unet: as loaded, or made ready by prepare_for_inference(). layout: of pixels and of the weights of convolutions."""
        super().__init__()
        self.layout = layout
        self.unet = unet
        self.decoder = PictureDecoder(vae)
        positions = torch.from_numpy(positional_encoding(unet.config.audio_channels))
        self.register_buffer("positions", positions.to(unet.conv_in.weight.device), persistent=False)
        if layout is torch.channels_last:
            channels_last(self)

    def forward(self, latents: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        sound = (rows + self.positions).to(self.dtype)
        levels = self.decoder.levels(self.unet(latents.to(self.dtype, memory_format=self.layout), sound))
        usable = torch.isfinite(levels).flatten(1).all(dim=1)
        return to_bytes(levels).flip(1).permute(0, 2, 3, 1).contiguous(), usable

    def fuse(self, fusion: Fusion) -> None:
        """Work so from now on."""
        fuse(self, fusion)

    def forget(self) -> None:
        """What was computed for other ways to work; no recording may use it any more."""
        forget(self)

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    @property
    def row_shape(self) -> tuple[int, int]:
        return TOKENS, self.unet.config.audio_channels


class CpuPainter:
    """Implements Painter on a CPU: paints when the result is asked for."""

    remarks: Sequence[str] = ()

    def __init__(self, network: FaceNetwork, max_batch: int = 1):
        self.max_batch = max_batch
        self._network = network

    def begin(self, orders: Sequence[Order]) -> Callable[[], Faces]:
        latents = torch.from_numpy(np.stack([order.latent for order in orders]))
        rows = torch.from_numpy(np.stack([order.row for order in orders]))
        return lambda: self._paint(latents, rows)

    def warm_up(self) -> None:
        """The first face takes no longer than any other."""

    def _paint(self, latents: Tensor, rows: Tensor) -> Faces:
        with torch.inference_mode():
            pictures, usable = self._network(latents, rows)
        return Faces(pictures.numpy(), usable.numpy())
