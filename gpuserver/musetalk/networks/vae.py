"""The VAE (sd-vae-ft-mse): pictures of 256 x 256 to latents of 32 x 32 and back. diffusers calls the graph AutoencoderKL."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gpuserver.musetalk.networks.attention import attend
from gpuserver.musetalk.networks.resnet import Downsampler, GroupNorm, ResnetBlock, Upsampler

SCALING_FACTOR = 0.18215  # makes latents of about unit variance; Rombach et al. 2022, appendix G
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """The sizes of a VAE. channels: one width per scale, each a multiple of 32."""

    channels: tuple[int, ...]
    latent_channels: int = 4
    groups: int = 32

    @classmethod
    def official(cls) -> VaeConfig:
        """stabilityai/sd-vae-ft-mse: 83 653 863 parameters."""
        return cls(channels=(128, 256, 512, 512))

    @classmethod
    def tiny(cls) -> VaeConfig:
        """The same graph, small enough for a test on a CPU."""
        return cls(channels=(32, 32, 64, 64))


class PixelAttention(nn.Module):
    """Attention of all pixels to each other, one head, added to its input: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, config: VaeConfig, channels: int):
        super().__init__()
        self.group_norm = GroupNorm(config.groups, channels, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list, because the files name it "to_out.0"

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.group_norm(pixels).permute(0, 2, 3, 1).flatten(1, 2)
        mixed = self.to_out[0](attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), heads=1))
        added: Tensor = mixed.reshape(len(pixels), *pixels.shape[2:], -1).permute(0, 3, 1, 2) + pixels
        return added


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the smallest scale."""

    def __init__(self, config: VaeConfig, channels: int):
        super().__init__()
        self.attentions = nn.ModuleList([PixelAttention(config, channels)])
        self.resnets = nn.ModuleList([_resnet(config, channels, channels) for _ in range(2)])

    def forward(self, hidden: Tensor) -> Tensor:
        first, second = self.resnets
        result: Tensor = second(self.attentions[0](first(hidden)))
        return result


class DownBlock(nn.Module):
    """Two residual blocks, then half the size but for the last scale."""

    def __init__(self, config: VaeConfig, in_channels: int, out_channels: int, *, downsample: bool):
        super().__init__()
        self.resnets = nn.ModuleList([_resnet(config, in_channels, out_channels), _resnet(config, out_channels, out_channels)])
        self.downsamplers = nn.ModuleList([Downsampler(out_channels, padding=0)] if downsample else [])

    def forward(self, hidden: Tensor) -> Tensor:
        for step in (*self.resnets, *self.downsamplers):
            hidden = step(hidden)
        return hidden


class UpBlock(nn.Module):
    """Three residual blocks, then double the size but for the last scale."""

    def __init__(self, config: VaeConfig, in_channels: int, out_channels: int, *, upsample: bool):
        super().__init__()
        widths = (in_channels, out_channels, out_channels)
        self.resnets = nn.ModuleList(_resnet(config, width, out_channels) for width in widths)
        self.upsamplers = nn.ModuleList([Upsampler(out_channels)] if upsample else [])

    def forward(self, hidden: Tensor) -> Tensor:
        for step in (*self.resnets, *self.upsamplers):
            hidden = step(hidden)
        return hidden


class Encoder(nn.Module):
    """[B, 3, 256, 256] -> [B, 8, 32, 32]: means and logarithms of variances, before `quant_conv`."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        scales = list(pairwise((first, *config.channels)))
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        self.down_blocks = nn.ModuleList(DownBlock(config, *widths, downsample=i < len(scales) - 1) for i, widths in enumerate(scales))
        self.mid_block = MiddleBlock(config, last)
        self.conv_norm_out = GroupNorm(config.groups, last, EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv_in(images)
        for block in (*self.down_blocks, self.mid_block):
            hidden = block(hidden)
        moments: Tensor = self.conv_out(self.conv_norm_out.activated(hidden))
        return moments


class Decoder(nn.Module):
    """[B, 4, 32, 32], after `post_quant_conv`, -> [B, 3, 256, 256]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        scales = list(pairwise((last, *config.channels[::-1])))
        self.conv_in = nn.Conv2d(config.latent_channels, last, 3, padding=1)
        self.mid_block = MiddleBlock(config, last)
        self.up_blocks = nn.ModuleList(UpBlock(config, *widths, upsample=i < len(scales) - 1) for i, widths in enumerate(scales))
        self.conv_norm_out = GroupNorm(config.groups, first, EPS)
        self.conv_out = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.conv_in(latents)
        for block in (self.mid_block, *self.up_blocks):
            hidden = block(hidden)
        images: Tensor = self.conv_out(self.conv_norm_out.activated(hidden))
        return images


class Vae(nn.Module):
    """Pictures are RGB [B, 3, 256, 256] in -1..1; latents are [B, 4, 32, 32]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, not yet scaled by SCALING_FACTOR."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents that are scaled by SCALING_FACTOR; values may leave -1..1 a little."""
        images: Tensor = self.decoder(self.post_quant_conv(latents / SCALING_FACTOR))
        return images


def _resnet(config: VaeConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, groups=config.groups, eps=EPS)
