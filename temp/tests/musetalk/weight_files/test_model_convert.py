"""Half-precision copies of weights, with tiny networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from gpuserver.errors import DiskFull, WeightsDamaged
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import Vae, VaeConfig
from gpuserver.musetalk.weight_files import model_convert
from gpuserver.musetalk.weight_files.made_up_weights import random_weights
from gpuserver.musetalk.weight_files.model_check import Verdict, check_models
from gpuserver.musetalk.weight_files.model_convert import Conversion, Loader, convert_models
from gpuserver.musetalk.weight_files.model_files import Version
from gpuserver.musetalk.weight_files.weights import load_unet, load_vae

UNET = Path("models/musetalkV15/unet.pth")
VAE = Path("models/sd-vae/diffusion_pytorch_model.safetensors")

LOADERS: dict[str, Loader] = {
    "UNet V1.5": lambda base: load_unet(base, Version.V15, dtype=torch.float32, config=UNetConfig.tiny()),
    "VAE": lambda base: load_vae(base, dtype=torch.float32, config=VaeConfig.tiny()),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """With tiny weights in the official places."""
    for path in (UNET, VAE):
        (tmp_path / path).parent.mkdir(parents=True)
    torch.save(random_weights(UNet(UNetConfig.tiny()), 1).state_dict(), tmp_path / UNET)
    safetensors.torch.save_file(random_weights(Vae(VaeConfig.tiny()), 2).state_dict(), tmp_path / VAE)
    return tmp_path


def convert(base: Path, loaders: dict[str, Loader] | None = None) -> list[Conversion]:
    return list(convert_models(base, loaders or LOADERS))


def files(base: Path) -> set[str]:
    return {path.name for path in base.rglob("*") if path.is_file()}


def test_a_copy_has_half_the_size_and_the_rounded_numbers(base: Path) -> None:
    before = load_unet(base, Version.V15, dtype=torch.float32, config=UNetConfig.tiny()).state_dict()
    made = convert(base)
    assert [each.converted.name for each in made] == ["unet.fp16.safetensors", "diffusion_pytorch_model.fp16.safetensors"]
    assert all(0.4 < each.size_after / each.size_before < 0.6 for each in made)
    after = load_unet(base, Version.V15, dtype=torch.float32, config=UNetConfig.tiny()).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name].half().float()) for name in before)
    assert not all(torch.equal(after[name], before[name]) for name in before)  # the copy is what is loaded


def test_a_copy_is_a_regular_safetensors_file(base: Path) -> None:
    made = convert(base)[0]
    state = safetensors.torch.load_file(made.converted)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    with safetensors.safe_open(made.converted, "pt") as opened:
        assert opened.metadata() == {"network": "UNet V1.5", "made_from": "unet.pth"}
    reports = {report.path: report.verdict for report in check_models(base)}
    assert reports["musetalkV15/unet.fp16.safetensors"] is Verdict.GOOD


def test_what_has_been_converted_is_not_converted_again(base: Path) -> None:
    assert len(convert(base)) == 2
    assert convert(base) == []


def test_a_copy_serves_without_its_original(base: Path) -> None:
    convert(base)
    (base / UNET).unlink()
    load_unet(base, Version.V15, config=UNetConfig.tiny())
    assert convert(base) == []


def test_a_truncated_copy_is_made_anew(base: Path) -> None:
    converted = convert(base)[0].converted
    whole = converted.read_bytes()
    converted.write_bytes(whole[:-1])
    assert [each.converted for each in convert(base)] == [converted]
    assert converted.read_bytes() == whole


def test_counters_stay_integers(base: Path) -> None:
    def counting(_base: Path) -> nn.Module:
        return nn.BatchNorm1d(3)

    made = convert(base, {**LOADERS, "UNet V1.5": counting})[0]
    assert safetensors.torch.load_file(made.converted)["num_batches_tracked"].dtype == torch.int64


def test_numbers_beyond_half_precision_are_refused_and_nothing_stays(base: Path) -> None:
    def huge(_base: Path) -> nn.Module:
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.bias, 1e6)
        return layer

    before = files(base)
    with pytest.raises(WeightsDamaged, match="bias"):
        convert(base, {**LOADERS, "UNet V1.5": huge})
    assert files(base) == before


def test_a_file_that_is_not_the_network_is_refused(base: Path) -> None:
    torch.save({"odd": torch.zeros(3)}, base / UNET)
    before = files(base)
    with pytest.raises(WeightsDamaged, match="is not UNet"):
        convert(base)
    assert files(base) == before


def test_without_room_nothing_is_written(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_convert, "MARGIN_BYTES", 1 << 60)
    before = files(base)
    with pytest.raises(DiskFull, match="GB are free"):
        convert(base)
    assert files(base) == before
