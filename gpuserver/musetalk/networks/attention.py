"""Attention over the pixels of a picture, to each other and to the tokens of the sound."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from gpuserver.musetalk.networks.resnet import GroupNorm


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Multi-head attention with scale 1 / sqrt(C / heads): queries [B, T, C], keys and values [B, S, C] -> [B, T, C]."""
    query, key, value = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (queries, keys, values))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """What each of T tokens takes from S tokens of a context: [B, T, C], [B, S, context_channels] -> [B, T, C]."""

    def __init__(self, channels: int, context_channels: int, *, heads: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list, because the files name it "to_out.0"

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        mixed: Tensor = self.to_out[0](attend(self.to_q(tokens), self.to_k(context), self.to_v(context), self.heads))
        return mixed


class GatedProjection(nn.Module):
    """GEGLU: one half of a projection, gated by the GELU of the other: [B, T, C] -> [B, T, 4 C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        gated: Tensor = value * functional.gelu(gate)
        return gated


class FeedForward(nn.Module):
    """[B, T, C] -> [B, T, C], each token by itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(GatedProjection(channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        changed: Tensor = self.net(tokens)
        return changed


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward; each normalised before and added to its input."""

    def __init__(self, channels: int, context_channels: int, *, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1: nn.Module = Attention(channels, channels, heads=heads, bias=False)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2: nn.Module = Attention(channels, context_channels, heads=heads, bias=False)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        normal = self.norm1(tokens)
        tokens = tokens + self.attn1(normal, normal)
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        changed: Tensor = self.ff(self.norm3(tokens))
        return tokens + changed


class SpatialTransformer(nn.Module):
    """A transformer block whose tokens are the pixels: [B, C, H, W], context [B, S, context_channels] -> [B, C, H, W]."""

    def __init__(self, channels: int, context_channels: int, *, heads: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_channels, heads=heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, pixels: Tensor, context: Tensor) -> Tensor:
        height, width = pixels.shape[2:]
        tokens = self.proj_in(self.norm(pixels)).permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        changed: Tensor = self.proj_out(tokens.reshape(len(pixels), height, width, -1).permute(0, 3, 1, 2))
        return changed + pixels
