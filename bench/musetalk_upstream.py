"""The same work by the call pattern of upstream's realtime script: eager, batches of 20, each step cast by itself, one copy per batch.

Only the pattern is upstream's (scripts/realtime_inference.py and musetalk/models/vae.py); the networks are ours, as loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bench.musetalk_rig import Rig
from gpuserver.domain import Floats
from gpuserver.musetalk.neural.whisper_features import positional_encoding


class UpstreamPattern:
    """Draws frame after frame of one avatar from rows on the host."""

    def __init__(self, rig: Rig):
        self._rig = rig
        self._unet, self._vae, _ = rig.networks(seed=2)
        self._positions = torch.from_numpy(positional_encoding(self._unet.config.audio_channels)).to(rig.device, rig.dtype)
        self._latents = [torch.from_numpy(latent)[None].to(rig.device) for latent in rig.latents]  # upstream keeps them there

    @torch.no_grad()
    def draw(self, rows: Sequence[Floats]) -> list[np.ndarray]:
        """BGR uint8 [256, 256, 3] per row."""
        faces: list[np.ndarray] = []
        batch = self._rig.size.upstream_batch
        for at in range(0, len(rows), batch):
            sound = torch.stack([torch.from_numpy(row) for row in rows[at : at + batch]])
            latents = torch.cat([self._latents[(at + index) % len(self._latents)] for index in range(len(sound))])
            features = sound.to(self._rig.device, self._rig.dtype) + self._positions
            latents = latents.to(dtype=self._rig.dtype)
            predicted = self._unet(latents, features).to(dtype=self._rig.dtype)
            faces.extend(self._decoded(predicted))
        return faces

    def _decoded(self, latents: torch.Tensor) -> np.ndarray:
        images = self._vae.decode(latents)
        images = (images / 2 + 0.5).clamp(0, 1)
        pictures = images.detach().cpu().permute(0, 2, 3, 1).float().numpy()
        return (pictures * 255).round().astype("uint8")[..., ::-1]
