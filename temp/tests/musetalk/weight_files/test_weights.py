"""Weight files: every official format is read, and whatever is not exactly right is refused without running it."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import weight_files
from torch import Tensor
from weight_files import BISENET, UNET_V10, UNET_V15, WHISPER, same, tiny_unet, tiny_vae, tiny_whisper, write

from gpuserver.errors import WeightsDamaged, WeightsMissing, WeightsUnusable
from gpuserver.musetalk.networks.unet import UNet, UNetConfig
from gpuserver.musetalk.networks.vae import VaeConfig
from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
from gpuserver.musetalk.weight_files import weights
from gpuserver.musetalk.weight_files.checkpoint import read_checkpoint
from gpuserver.musetalk.weight_files.model_files import NEEDS, Version


def load_tiny_unet(base: Path, version: Version = Version.V15) -> UNet:
    return weights.load_unet(base, version, config=UNetConfig.tiny())


def load_tiny_whisper(base: Path) -> WhisperEncoder:
    return weights.load_whisper(base, config=WhisperConfig.tiny())


# ---------------------------------------------------------------- every official format


def test_each_version_loads_its_own_unet(tmp_path: Path) -> None:
    older, newer = tiny_unet(seed=10), tiny_unet(seed=15)
    write(tmp_path, UNET_V10, older.state_dict())
    write(tmp_path, UNET_V15, newer.state_dict())
    assert same(load_tiny_unet(tmp_path, Version.V10), older)
    assert same(load_tiny_unet(tmp_path, Version.V15), newer)


def test_a_loaded_network_is_ready_for_inference_and_remembers_no_gradients(tmp_path: Path) -> None:
    write(tmp_path, UNET_V15, tiny_unet().state_dict())
    unet = load_tiny_unet(tmp_path)
    assert not unet.training
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    drawn = unet(torch.zeros(1, 8, 32, 32), torch.zeros(1, 50, 64))
    assert drawn.isfinite().all()


@pytest.mark.parametrize("folder", ["sd-vae", "sd-vae-ft-mse"])
@pytest.mark.parametrize("names", [dict, weight_files.old_vae_names])
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_the_vae_loads_from_both_folders_in_both_formats_with_old_and_new_names(
    tmp_path: Path, folder: str, names: Callable[[weight_files.State], dict[str, Tensor]], suffix: str
) -> None:
    vae = tiny_vae()
    write(tmp_path, f"{folder}/diffusion_pytorch_model.{suffix}", names(vae.state_dict()))
    assert same(weights.load_vae(tmp_path, config=VaeConfig.tiny()), vae)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("file", [WHISPER, "whisper/model.safetensors"])
def test_whisper_loads_with_and_without_prefix(tmp_path: Path, prefix: str, file: str) -> None:
    whisper = tiny_whisper()
    write(tmp_path, file, weight_files.whole_whisper(whisper.state_dict(), prefix))
    assert same(load_tiny_whisper(tmp_path), whisper)


def test_whisper_loads_from_a_file_of_openai(tmp_path: Path) -> None:
    whisper = tiny_whisper()
    content = {"dims": {"n_mels": 80}, "model_state_dict": weight_files.openai_names(whisper.state_dict())}
    write(tmp_path, "whisper/tiny.pt", content)
    assert same(load_tiny_whisper(tmp_path), whisper)


@pytest.mark.parametrize("legacy", [False, True])
def test_bisenet_loads_also_from_a_file_that_is_older_than_torch_1_6(tmp_path: Path, legacy: bool) -> None:
    bisenet = weight_files.bisenet()
    write(tmp_path, BISENET, bisenet.state_dict(), legacy=legacy)
    assert same(weights.load_bisenet(tmp_path), bisenet)


def test_a_converted_file_is_preferred(tmp_path: Path) -> None:
    original, converted = tiny_unet(seed=1), deepcopy(tiny_unet(seed=2)).half()
    write(tmp_path, UNET_V15, original.state_dict())
    write(tmp_path, "musetalkV15/unet.fp16.safetensors", converted.state_dict())
    assert same(load_tiny_unet(tmp_path), converted.float())


def test_a_converted_file_of_an_original_that_was_replaced_is_passed_over(tmp_path: Path) -> None:
    converted = write(tmp_path, "musetalkV15/unet.fp16.safetensors", deepcopy(tiny_unet(seed=2)).half().state_dict())
    original = write(tmp_path, UNET_V15, tiny_unet(seed=1).state_dict())
    os.utime(converted, (1_700_000_000, 1_700_000_000))
    os.utime(original, (1_700_000_001, 1_700_000_001))
    assert same(load_tiny_unet(tmp_path), tiny_unet(seed=1))


def test_a_converted_whisper_has_the_encoder_s_own_names(tmp_path: Path) -> None:
    whisper = deepcopy(tiny_whisper()).half()
    write(tmp_path, "whisper/model.fp16.safetensors", whisper.state_dict())
    assert same(load_tiny_whisper(tmp_path), whisper.float())


def test_a_network_is_made_in_the_number_type_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, UNET_V15, tiny_unet().state_dict())
    unet = weights.load_unet(tmp_path, Version.V15, dtype=torch.bfloat16, config=UNetConfig.tiny())
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}


def test_a_gpu_halves_and_a_cpu_is_exact_unless_it_shall_be_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.suitable_dtype("cuda:1") is torch.float16
    assert weights.suitable_dtype("cpu") is torch.float32
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert weights.suitable_dtype("cpu", fast=True) is torch.bfloat16
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert weights.suitable_dtype("cpu", fast=True) is torch.float32


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize("version", list(Version))
def test_a_missing_file_is_named_with_the_place_to_get_it(tmp_path: Path, version: Version) -> None:
    need = next(need for need in NEEDS if need.name == f"UNet {version}")
    with pytest.raises(WeightsMissing) as missing:
        load_tiny_unet(tmp_path, version)
    assert str(tmp_path / "models" / need.choices[0].path) in missing.value.detail
    assert need.choices[0].page in missing.value.advice
    assert "gpuserver models download" in missing.value.advice


@pytest.mark.parametrize("name", [UNET_V15, "musetalkV15/unet.fp16.safetensors"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, part: float) -> None:
    path = write(tmp_path, name, tiny_unet().state_dict())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(WeightsDamaged) as damaged:
        load_tiny_unet(tmp_path)
    assert str(path) in damaged.value.detail


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_never_run(tmp_path: Path, legacy: bool) -> None:
    proof = tmp_path / "it-ran"
    write(tmp_path, UNET_V15, {**tiny_unet().state_dict(), "bomb": Bomb(f"touch {proof}")}, legacy=legacy)
    with pytest.raises(WeightsDamaged, match="nothing of it was run"):
        load_tiny_unet(tmp_path)
    assert not proof.exists()
    assert Bomb(f"touch {proof}").__reduce__()[0](f"touch {proof}") == 0
    assert proof.exists()  # the command would have left its mark


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {},
        {"unet": {"conv_in.weight": torch.zeros(3)}},
        {"conv_in.weight": "abc"},
        {1: torch.zeros(3)},
        {"conv_in.weight": torch.zeros(3, device="meta")},
        {"conv_in.weight": torch.zeros(3, 3).to_sparse()},
    ],
    ids=["a tensor", "a list", "nothing", "nested", "text", "numbers for names", "no storage", "sparse"],
)
def test_what_is_not_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    write(tmp_path, UNET_V15, content)
    with pytest.raises(WeightsDamaged, match=r"unet\.pth"):
        load_tiny_unet(tmp_path)


@pytest.mark.parametrize(
    "content", [b"<html>Not found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02}q\x00.", b"PK\x03\x04" * 9]
)
def test_what_is_no_weight_file_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, UNET_V15, {}).write_bytes(content)
    with pytest.raises(WeightsDamaged):
        load_tiny_unet(tmp_path)


def test_a_file_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, UNET_V15, tiny_unet().state_dict())
    with zipfile.ZipFile(path) as whole:
        parts = {part.filename: whole.read(part) for part in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in parts.items():
            bomb.writestr(name, content + bytes(1 << 24 if name.endswith("data.pkl") else 0))
    with pytest.raises(WeightsDamaged, match="compressed"):
        load_tiny_unet(tmp_path)


def test_names_out_of_a_file_are_fit_for_a_terminal(tmp_path: Path) -> None:
    write(tmp_path, UNET_V15, {**tiny_unet().state_dict(), "\x1b[2Jgone": torch.zeros(1), "long" * 1000: torch.zeros(1)})
    with pytest.raises(WeightsDamaged) as damaged:
        load_tiny_unet(tmp_path)
    assert damaged.value.detail.isprintable()
    assert r"\x1b[2Jgone" in damaged.value.detail
    assert len(damaged.value.detail) < 500


def test_a_folder_in_a_file_s_place_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "models" / UNET_V15).mkdir(parents=True)
    with pytest.raises(WeightsMissing):
        load_tiny_unet(tmp_path)


def test_wrong_names_are_told_with_the_first_few(tmp_path: Path) -> None:
    state = dict(tiny_unet().state_dict())
    del state["conv_in.weight"]
    path = write(tmp_path, UNET_V15, {**state, "lora.weight": torch.zeros(1), "ema.weight": torch.zeros(1)})
    with pytest.raises(WeightsDamaged) as damaged:
        load_tiny_unet(tmp_path)
    assert damaged.value.detail == (
        f"{path} is not UNet V1.5: 1 tensor is missing (conv_in.weight); 2 tensors are unknown (lora.weight, ema.weight)."
    )
    assert "https://huggingface.co/TMElyralab/MuseTalk/" in damaged.value.advice


def test_a_network_of_another_size_is_told_by_its_shapes(tmp_path: Path) -> None:
    write(tmp_path, UNET_V15, tiny_unet().state_dict())
    with pytest.raises(WeightsDamaged, match=r"conv_in\.weight 32x8x3x3 instead of 320x8x3x3"):
        weights.load_unet(tmp_path, Version.V15)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path, UNET_V15, tiny_vae().state_dict())
    with pytest.raises(WeightsDamaged, match=r"is not UNet V1\.5"):
        load_tiny_unet(tmp_path)


def test_integers_do_not_pass_for_weights(tmp_path: Path) -> None:
    state = dict(tiny_unet().state_dict())
    state["conv_in.bias"] = torch.zeros(32, dtype=torch.int64)
    write(tmp_path, UNET_V15, state)
    with pytest.raises(WeightsDamaged, match=r"of another number type \(conv_in\.bias\)"):
        load_tiny_unet(tmp_path)


@pytest.mark.parametrize("name", [UNET_V15, "musetalkV15/unet.fp16.safetensors"])
def test_damaged_bytes_lead_to_an_error_of_ours_or_to_other_tensors_and_to_nothing_else(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, {"conv_in.weight": torch.ones(8, 8), "conv_in.bias": torch.ones(8)})
    whole, dice = path.read_bytes(), random.Random(4)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        path.write_bytes(broken)
        try:
            state = read_checkpoint(path)
        except WeightsUnusable:
            refused += 1
        else:
            assert all(isinstance(tensor, Tensor) for tensor in state.values())
    assert 0 < refused < 300
