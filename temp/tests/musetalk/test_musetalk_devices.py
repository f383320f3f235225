"""MuseTalk on every visible GPU: which ones are taken, which are left out, and how fast they are. GPUs and networks are small stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_network import FakeNetwork
from structlog.testing import capture_logs
from weight_files import UNET_V15, WHISPER, smallest_networks, write

from gpuserver.config import Settings
from gpuserver.domain import LipSyncEngine
from gpuserver.errors import DeviceLost, NoDevice, WeightsDamaged, WeightsMissing
from gpuserver.musetalk import musetalk_devices
from gpuserver.musetalk.musetalk_devices import frames_per_second, load_musetalk, load_on
from gpuserver.musetalk.renderer import Device
from gpuserver.musetalk.weight_files.model_files import Version


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in (UNET_V15, WHISPER, "sd-vae/diffusion_pytorch_model.bin"):
        write(tmp_path, name, {"weight": torch.zeros(1)})
    return Settings(_env_file=None, enable_musetalk=True, musetalk_base=tmp_path)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """One entry per GPU: what goes wrong on it."""
    faults: list[Exception | None] = []

    def load(device: str, base: Path, version: Version) -> Device:
        if fault := faults[int(device.removeprefix("cuda:"))]:
            raise fault
        return Device(FakeNetwork(device), 100.0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(faults))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(faults))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"fake GPU {index}")
    monkeypatch.setattr(musetalk_devices, "load_on", load)
    return faults


def test_all_gpus_are_used(settings: Settings, gpus: list[Exception | None]) -> None:
    gpus += [None, None, None]
    assert [device.engine.name for device in load_musetalk(settings)] == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("full"), DeviceLost("CUDA error: unspecified launch failure")])
def test_a_gpu_that_is_full_or_broken_is_left_out_and_named(settings: Settings, gpus: list[Exception | None], fault: Exception) -> None:
    gpus += [fault, None]
    with capture_logs() as logs:
        assert [device.engine.name for device in load_musetalk(settings)] == ["cuda:1"]
    assert [(line["event"], line["device"], line["gpu"]) for line in logs] == [("gpu_left_out", "cuda:0", "fake GPU 0")]


def test_without_any_gpu_that_it_fits_on_there_is_no_device(settings: Settings, gpus: list[Exception | None]) -> None:
    with pytest.raises(NoDevice):
        load_musetalk(settings)
    gpus += [torch.OutOfMemoryError("full")]
    with pytest.raises(NoDevice):
        load_musetalk(settings)


def test_damaged_weights_are_no_fault_of_a_gpu(settings: Settings, gpus: list[Exception | None]) -> None:
    gpus += [WeightsDamaged("truncated"), None]
    with pytest.raises(WeightsDamaged):
        load_musetalk(settings)


def test_weights_that_are_missing_are_missed_before_a_gpu_is_asked(settings: Settings, gpus: list[Exception | None]) -> None:
    assert settings.musetalk_base is not None
    (settings.musetalk_base / "models" / UNET_V15).unlink()
    with pytest.raises(WeightsMissing, match=UNET_V15):
        load_musetalk(settings)


def test_an_engine_is_loaded_warmed_up_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest_networks(tmp_path, monkeypatch)
    measured: list[LipSyncEngine] = []

    def measure(engine: LipSyncEngine) -> float:
        measured.append(engine)
        return 450.0

    monkeypatch.setattr(musetalk_devices, "frames_per_second", measure)
    device = load_on("cpu", tmp_path, Version.V15)
    assert device == Device(measured[0], 450.0)
    assert device.engine.name == "musetalk"


def test_what_fails_on_the_way_to_a_gpu_is_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest_networks(tmp_path, monkeypatch)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(musetalk_devices, "load_vae", fail)
    with pytest.raises(DeviceLost):
        load_on("cpu", tmp_path, Version.V15)


def ticking(seconds: float) -> Callable[[], float]:
    times = iter([0.0, seconds])
    return lambda: next(times)


def test_its_speed_is_that_of_full_batches_that_follow_one_another() -> None:
    network = FakeNetwork(max_batch=4)
    assert frames_per_second(network, ticking(0.5)) == 64
    assert [len(batch) for batch in network.finished] == [4] * 8
