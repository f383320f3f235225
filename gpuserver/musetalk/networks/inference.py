"""The same networks with less work: what does not change from call to call is computed once, and small products become one."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpuserver.musetalk.networks.attention import Attention, TransformerBlock, attend
from gpuserver.musetalk.networks.resnet import ResnetBlock
from gpuserver.musetalk.networks.unet import UNet
from gpuserver.musetalk.networks.vae import SCALING_FACTOR, Vae

Network = TypeVar("Network", bound=nn.Module)

HALF_RANGE = 127.5  # -1..1 times this, plus this, is 0..255


class StackedAttention(nn.Module):
    """Self-attention with queries, keys and values out of one product."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads = attention.heads
        self.to_qkv = stack([attention.to_q, attention.to_k, attention.to_v])
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, _context: Tensor) -> Tensor:
        """`_context` is `tokens` again, as for every self-attention."""
        queries, keys, values = self.to_qkv(tokens).chunk(3, dim=-1)
        mixed: Tensor = self.to_out(attend(queries, keys, values, self.heads))
        return mixed


class ProjectedAttention(nn.Module):
    """Attention to a context whose keys and values are projected already: [B, S, all layers' keys and values] in, own share used."""

    def __init__(self, attention: Attention, first: int):
        super().__init__()
        self.heads = attention.heads
        self.first = first
        self.to_q = attention.to_q
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        width = tokens.shape[-1]
        keys = context.narrow(-1, self.first, width)
        values = context.narrow(-1, self.first + width, width)
        mixed: Tensor = self.to_out(attend(self.to_q(tokens), keys, values, self.heads))
        return mixed


class PictureDecoder(nn.Module):
    """The VAE's decoder with the latents' scale folded into its first convolution and the pictures' range into its last.

    It shares all other parameters with the VAE it is made of, which stays as it is. forward(): latents [B, 4, 32, 32] scaled by
    0.18215 -> RGB uint8 [B, 3, 256, 256], on the latents' device.
    """

    def __init__(self, vae: Vae):
        super().__init__()
        self.first = scaled(vae.post_quant_conv, inputs=1 / SCALING_FACTOR)
        self.conv_in = vae.decoder.conv_in
        self.blocks = nn.Sequential(vae.decoder.mid_block, *vae.decoder.up_blocks)
        self.norm = vae.decoder.conv_norm_out
        self.last = scaled(vae.decoder.conv_out, outputs=HALF_RANGE, offset=HALF_RANGE)

    def levels(self, latents: Tensor) -> Tensor:
        """The pictures before they are rounded: 0..255, a little more or less where the network overshoots."""
        hidden = self.blocks(self.conv_in(self.first(latents)))
        pictures: Tensor = self.last(self.norm.activated(hidden))
        return pictures

    def forward(self, latents: Tensor) -> Tensor:
        return to_bytes(self.levels(latents))


def channels_last(network: Network) -> Network:
    """Keep all channels of a pixel side by side in every convolution's weights, in place: GPUs and bfloat16 CPUs convolve so faster.

    The pictures that go in must lie in memory in the same way.
    """
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def to_bytes(levels: Tensor) -> Tensor:
    """Levels as uint8, halves rounded to even, limited to 0..255."""
    return levels.round().clamp(0, 255).to(torch.uint8)


def prepare_for_inference(unet: UNet) -> UNet:
    """Fold the time, stack the self-attentions' projections and make all keys and values of the sound one product.

    Changes the UNet in place and returns it; its parameters no longer have the official names. To be called once, with the
    weights in place. Raises ValueError when it was called before.
    """
    fold_time(unet)
    attentions = [module for module in unet.modules() if isinstance(module, TransformerBlock)]
    projections: list[nn.Linear] = []
    first = 0
    for block in attentions:
        own, sound = cast(Attention, block.attn1), cast(Attention, block.attn2)
        block.attn1 = StackedAttention(own)
        block.attn2 = ProjectedAttention(sound, first)
        projections += [sound.to_k, sound.to_v]
        first += sound.to_k.out_features + sound.to_v.out_features
    unet.audio_projection = stack(projections)
    return unet


@torch.no_grad()
def fold_time(unet: UNet) -> None:
    """Add each residual block's share of the time embedding, a constant, to the bias of its first convolution."""
    if unet.time_embedding is None:
        raise ValueError("the time is folded already")
    embedding = functional.silu(unet.time_embedding.float()())
    for block in unet.modules():
        if isinstance(block, ResnetBlock) and block.time_emb_proj is not None and block.conv1.bias is not None:
            bias = block.conv1.bias
            block.conv1.bias = _constant((bias.float() + block.time_emb_proj.float()(embedding)[0]).to(bias.dtype))
            block.time_emb_proj = None
    unet.time_embedding = None


@torch.no_grad()
def stack(layers: list[nn.Linear]) -> nn.Linear:
    """One layer without bias that computes what layers without bias compute of the same input, side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    stacked = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    stacked.weight = _constant(weight)
    return stacked


@torch.no_grad()
def scaled(layer: nn.Conv2d, *, inputs: float = 1, outputs: float = 1, offset: float = 0) -> nn.Conv2d:
    """A copy of the convolution that computes layer(inputs * x) * outputs + offset."""
    if layer.bias is None:
        raise ValueError("a convolution without bias cannot take an offset")
    folded = deepcopy(layer).requires_grad_(requires_grad=False)
    folded.weight = _constant(layer.weight * (inputs * outputs))
    folded.bias = _constant(layer.bias * outputs + offset)
    return folded


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
