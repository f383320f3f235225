"""MuseTalk's UNet: from the latents of a face without a mouth and the sound's tokens to the latents of a talking face.

It is the graph that diffusers calls UNet2DConditionModel, with the fields of MuseTalk's musetalk.json; versions 1.0 and 1.5
differ in their weights only. The timestep is always 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpuserver.musetalk.networks.attention import SpatialTransformer
from gpuserver.musetalk.networks.resnet import Downsampler, GroupNorm, ResnetBlock, Upsampler


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The sizes of a UNet. channels: one width per scale, each a multiple of 32. audio_channels: width of a sound token."""

    channels: tuple[int, ...]
    audio_channels: int
    in_channels: int = 8
    out_channels: int = 4
    heads: int = 8  # the official json calls the number of heads "attention_head_dim"
    groups: int = 32

    @classmethod
    def official(cls) -> UNetConfig:
        """MuseTalk 1.0 and 1.5: 849 947 844 parameters."""
        return cls(channels=(320, 640, 1280, 1280), audio_channels=384)

    @classmethod
    def tiny(cls) -> UNetConfig:
        """The same graph, small enough for a test on a CPU."""
        return cls(channels=(32, 64, 64, 64), audio_channels=64)


class TimeEmbedding(nn.Module):
    """Two layers over the sinusoids of the timestep."""

    def __init__(self, sinusoids: int, channels: int):
        super().__init__()
        self.linear_1 = nn.Linear(sinusoids, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self) -> Tensor:
        """The embedding [1, channels] of timestep 0, whose cosines (first half) are 1 and sines 0: a constant of the weights."""
        sinusoids = self.linear_1.weight.new_zeros(1, self.linear_1.in_features)
        sinusoids[:, : self.linear_1.in_features // 2] = 1
        embedding: Tensor = self.linear_2(functional.silu(self.linear_1(sinusoids)))
        return embedding


class DownBlock(nn.Module):
    """Two residual blocks, each followed by attention where the scale has it, then half the size but for the last scale."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, *, attention: bool, downsample: bool):
        super().__init__()
        self.attentions = nn.ModuleList(_transformer(config, out_channels) for _ in range(2 if attention else 0))
        self.resnets = nn.ModuleList([_resnet(config, in_channels, out_channels), _resnet(config, out_channels, out_channels)])
        self.downsamplers = nn.ModuleList([Downsampler(out_channels, padding=1)] if downsample else [])

    def forward(self, hidden: Tensor, time: Tensor | None, audio: Tensor) -> list[Tensor]:
        """Every intermediate result, for the way up; the last one goes on."""
        results = []
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(hidden, time)
            if self.attentions:
                hidden = self.attentions[index](hidden, audio)
            results.append(hidden)
        results += [downsample(hidden) for downsample in self.downsamplers]
        return results


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the smallest scale."""

    def __init__(self, config: UNetConfig, channels: int):
        super().__init__()
        self.attentions = nn.ModuleList([_transformer(config, channels)])
        self.resnets = nn.ModuleList([_resnet(config, channels, channels) for _ in range(2)])

    def forward(self, hidden: Tensor, time: Tensor | None, audio: Tensor) -> Tensor:
        first, second = self.resnets
        result: Tensor = second(self.attentions[0](first(hidden, time), audio), time)
        return result


class UpBlock(nn.Module):
    """Three residual blocks, each joined by a result of the way down, then double the size but for the last scale."""

    def __init__(self, config: UNetConfig, in_channels: tuple[int, ...], out_channels: int, *, attention: bool, upsample: bool):
        super().__init__()
        self.attentions = nn.ModuleList(_transformer(config, out_channels) for _ in in_channels if attention)
        self.resnets = nn.ModuleList(_resnet(config, channels, out_channels) for channels in in_channels)
        self.upsamplers = nn.ModuleList([Upsampler(out_channels)] if upsample else [])

    def forward(self, hidden: Tensor, skipped: list[Tensor], time: Tensor | None, audio: Tensor) -> Tensor:
        """Takes its share from the end of `skipped`."""
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(torch.cat([hidden, skipped.pop()], dim=1), time)
            if self.attentions:
                hidden = self.attentions[index](hidden, audio)
        for upsample in self.upsamplers:
            hidden = upsample(hidden)
        return hidden


class UNet(nn.Module):
    """forward(): latents [B, 8, 32, 32] (0-3 with the mouth hidden, 4-7 the reference), audio [B, 50, C] -> [B, 4, 32, 32]."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        first, last = config.channels[0], config.channels[-1]
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.time_embedding: TimeEmbedding | None = TimeEmbedding(first, 4 * first)
        self.audio_projection: nn.Module = nn.Identity()  # prepare_for_inference() puts all keys and values here
        self.down_blocks = nn.ModuleList(_way_down(config))
        self.mid_block = MiddleBlock(config, last)
        self.up_blocks = nn.ModuleList(_way_up(config))
        self.conv_norm_out = GroupNorm(config.groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(self, latents: Tensor, audio: Tensor) -> Tensor:
        time = None if self.time_embedding is None else self.time_embedding()
        audio = self.audio_projection(audio)
        results = [self.conv_in(latents)]
        for block in self.down_blocks:
            results += block(results[-1], time, audio)
        hidden = self.mid_block(results[-1], time, audio)
        for block in self.up_blocks:
            hidden = block(hidden, results, time, audio)
        new_latents: Tensor = self.conv_out(self.conv_norm_out.activated(hidden))
        return new_latents


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, groups=config.groups, eps=1e-5, time_channels=4 * config.channels[0])


def _transformer(config: UNetConfig, channels: int) -> SpatialTransformer:
    return SpatialTransformer(channels, config.audio_channels, heads=config.heads, groups=config.groups)


def _way_down(config: UNetConfig) -> list[DownBlock]:
    """Every scale attends but the smallest, which also keeps its size."""
    scales = list(pairwise((config.channels[0], *config.channels)))
    last = len(scales) - 1
    return [DownBlock(config, *widths, attention=scale < last, downsample=scale < last) for scale, widths in enumerate(scales)]


def _way_up(config: UNetConfig) -> list[UpBlock]:
    """The scales in reverse. A block's resnets are joined by the two results of its own scale and the one that led to it."""
    widths = config.channels[::-1]  # 1280 1280 640 320
    below = (widths[0], *widths)  # what arrives from the smaller scale
    above = (*widths[1:], widths[-1])  # the width of the result that led to this scale on the way down
    last = len(widths) - 1
    return [
        UpBlock(config, (below[i] + width, width + width, width + above[i]), width, attention=i > 0, upsample=i < last)
        for i, width in enumerate(widths)
    ]
