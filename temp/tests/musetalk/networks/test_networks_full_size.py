"""The networks in their official size, once: what is folded and fused equals the plain network there too. Takes 4 GB of memory."""

from __future__ import annotations

import pytest
import torch
from golden_data import golden_array

from gpuserver.musetalk.networks.inference import PictureDecoder, prepare_for_inference
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights


def full_unet() -> UNet:
    with torch.device("meta"):
        unet = UNet(UNetConfig.official())
    return formula_weights(unet, "unet:")


def full_vae() -> Vae:
    with torch.device("meta"):
        vae = Vae(VaeConfig.official())
    return formula_weights(vae, "vae:")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_full_networks_draw_the_same_with_everything_folded() -> None:
    latents = golden_array("pipeline_tiny.npz", "latents_mode")
    sound = torch.randn(1, 50, 384, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        unet = full_unet()
        plain = unet(latents, sound)
        assert plain.isfinite().all()
        drawn = prepare_for_inference(unet)(latents, sound)
        assert (drawn - plain).abs().max() < 1e-4
        del unet  # 3.4 GB
        vae = full_vae()
        exact = ((vae.decode(plain) / 2 + 0.5).clamp(0, 1) * 255).round()
        assert (PictureDecoder(vae)(drawn) - exact).abs().max() <= 1
