"""The encoder of Whisper: what MuseTalk hears. Only its hidden states are used, no text is ever decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpuserver.musetalk.networks.attention import attend

MEL_BANDS = 80
MEL_FRAMES = 3000  # 30 s at 100 per second
STEPS = 1500  # 30 s at 50 per second


@dataclass(frozen=True, slots=True)
class WhisperConfig:
    """The sizes of an encoder. channels: width of a hidden state."""

    channels: int
    heads: int
    feed_forward: int
    layers: int

    @classmethod
    def official(cls) -> WhisperConfig:
        """openai/whisper-tiny: 8.2 million parameters in the encoder."""
        return cls(channels=384, heads=6, feed_forward=1536, layers=4)

    @classmethod
    def tiny(cls) -> WhisperConfig:
        """The same graph, small enough for a test on a CPU."""
        return cls(channels=64, heads=2, feed_forward=128, layers=4)


class SelfAttention(nn.Module):
    """Multi-head self-attention, [B, T, C] -> [B, T, C]; the keys have no bias."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, steps: Tensor) -> Tensor:
        mixed: Tensor = self.out_proj(attend(self.q_proj(steps), self.k_proj(steps), self.v_proj(steps), self.heads))
        return mixed


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each normalised before and added to its input."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.self_attn = SelfAttention(config.channels, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.channels)
        self.fc1 = nn.Linear(config.channels, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, config.channels)
        self.final_layer_norm = nn.LayerNorm(config.channels)

    def forward(self, steps: Tensor) -> Tensor:
        steps = steps + self.self_attn(self.self_attn_layer_norm(steps))
        changed: Tensor = self.fc2(functional.gelu(self.fc1(self.final_layer_norm(steps))))
        return steps + changed


class Positions(nn.Module):
    """What is added to every step: [1500, C]. nn.Embedding would do, but making one imports all of torch's compiler, for seconds."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(STEPS, channels))


class WhisperEncoder(nn.Module):
    """forward(): log-mel spectrograms [B, 80, 3000] -> hidden states [B, 1500, layers + 1, C].

    State 0 is the embedding, the last one is the last layer's output after `layer_norm`, those between are as the layers
    left them.
    """

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(MEL_BANDS, config.channels, 3, padding=1)
        self.conv2 = nn.Conv1d(config.channels, config.channels, 3, stride=2, padding=1)
        self.embed_positions = Positions(config.channels)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.channels)

    def forward(self, mel: Tensor) -> Tensor:
        sounds = functional.gelu(self.conv2(functional.gelu(self.conv1(mel))))
        states = [sounds.transpose(1, 2) + self.embed_positions.weight]
        for layer in self.layers:
            states.append(layer(states[-1]))
        states[-1] = self.layer_norm(states[-1])
        return torch.stack(states, dim=2)
