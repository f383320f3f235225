"""What the UNet and the VAE have in common: residual blocks of two convolutions, and changes of size by two."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from gpuserver.musetalk.networks.fusion import (
    Fusible,
    Fusion,
    Operations,
    Upsampling,
    convolved,
    interleaved,
    place,
    total_bias,
    transposed,
)


class GroupNorm(nn.GroupNorm, Fusible):
    """torch's, exact wherever the channels lie in memory.

    With a pixel's channels side by side, torch's CPU kernel takes a variance as E[x^2] - E[x]^2: of a group of almost equal numbers,
    as a black half of a face makes them, no digit is right. The copy costs little beside a convolution.
    """

    operations: Operations | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        if self.operations is not None:
            return self.operations.norm(self, pixels, None, activate=False)
        return super().forward(pixels.contiguous() if pixels.device.type == "cpu" else pixels)

    def activated(self, pixels: Tensor) -> Tensor:
        """Through SiLU as well."""
        if self.operations is not None:
            return self.operations.norm(self, pixels, None, activate=True)
        return functional.silu(self(pixels))

    def fuse(self, fusion: Fusion) -> None:
        self.operations = fusion.operations


class ResnetBlock(Fusible):
    """Two convolutions with a residual connection: [B, in_channels, H, W] -> [B, out_channels, H, W].

    time_channels: width of the time embedding that is added between the convolutions; None where there is none, or where it
    is folded into the first convolution's bias.
    """

    operations: Operations | None = None
    last_bias: Tensor | None = None  # of both convolutions whose sum is the result

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, eps: float, time_channels: int | None = None):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = None if time_channels is None else nn.Linear(time_channels, out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, pixels: Tensor, time: Tensor | None = None) -> Tensor:
        if self.operations is not None and self.last_bias is not None:
            return self._fused(pixels, self.operations, self.last_bias)
        hidden: Tensor = self.conv1(self.norm1.activated(pixels))
        if self.time_emb_proj is not None and time is not None:
            hidden = hidden + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        hidden = self.conv2(self.norm2.activated(hidden))
        return hidden + (pixels if self.conv_shortcut is None else self.conv_shortcut(pixels))

    def fuse(self, fusion: Fusion) -> None:
        """Raises ValueError while the time is not folded into the first convolution's bias."""
        if fusion.operations is not None and self.time_emb_proj is not None:
            raise ValueError("the time has to be folded first")
        self.operations = fusion.operations
        if fusion.operations is not None and self.last_bias is None:
            self.last_bias = total_bias(self.conv2, self.conv_shortcut)

    def _fused(self, pixels: Tensor, operations: Operations, last_bias: Tensor) -> Tensor:
        """Biases are added by whatever reads the convolutions' results next."""
        hidden = convolved(self.conv1, self.norm1.activated(pixels))
        hidden = convolved(self.conv2, operations.norm(self.norm2, hidden, self.conv1.bias, activate=True))
        shortcut = pixels if self.conv_shortcut is None else convolved(self.conv_shortcut, pixels)
        return operations.add(hidden, shortcut, last_bias)


class Downsampler(nn.Module):
    """Halves height and width: [B, C, H, W] -> [B, C, H / 2, W / 2].

    padding 1 pads all around (UNet); padding 0 pads one row below and one column to the right (VAE).
    """

    def __init__(self, channels: int, *, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.pad_right_and_bottom = padding == 0

    def forward(self, pixels: Tensor) -> Tensor:
        smaller: Tensor = self.conv(functional.pad(pixels, (0, 1, 0, 1)) if self.pad_right_and_bottom else pixels)
        return smaller


class Upsampler(Fusible):
    """Doubles height and width by repetition, then smooths: [B, C, H, W] -> [B, C, 2 H, 2 W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampling = Upsampling.REPEATED
        self.weights: dict[Upsampling, Tensor] = {}  # computed of the convolution's own

    def fuse(self, fusion: Fusion) -> None:
        self.upsampling = fusion.upsampling
        if self.upsampling in COMPUTED and self.upsampling not in self.weights:
            self.weights[self.upsampling] = COMPUTED[self.upsampling](self.conv)

    def forget(self) -> None:
        self.weights = {way: weight for way, weight in self.weights.items() if way is self.upsampling}

    def forward(self, pixels: Tensor) -> Tensor:
        if self.upsampling is Upsampling.TRANSPOSED:
            return functional.conv_transpose2d(pixels, self.weights[self.upsampling], self.conv.bias, stride=2, padding=1)
        if self.upsampling is Upsampling.INTERLEAVED and self.conv.bias is not None:
            return place(functional.conv2d(pixels, self.weights[self.upsampling], padding=1), self.conv.bias)
        larger: Tensor = self.conv(functional.interpolate(pixels, scale_factor=2.0, mode="nearest"))
        return larger


COMPUTED = {Upsampling.TRANSPOSED: transposed, Upsampling.INTERLEAVED: interleaved}
