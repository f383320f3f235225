"""gpuserver models …: what it says and with which exit code."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_hub import COMMIT, FakeHub, served
from typer.testing import CliRunner, Result

from gpuserver import cli
from gpuserver.cli_models import models
from gpuserver.errors import GpuserverError
from gpuserver.musetalk.weight_files import model_check, model_files
from gpuserver.musetalk.weight_files.model_files import ModelFile, Need, Source, Version

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"a small network" * 100
NEED = Need(
    "UNet V1.5",
    "draws",
    frozenset(Version),
    (ModelFile("unet/unet.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), Source("official/weights", COMMIT, "unet.pth")),),
)
Run = Callable[..., Result]

# The command in a process of its own, with the catalogue of the tests: HF_ENDPOINT is read when huggingface_hub is imported.
DOWNLOAD = f"""
import sys
from gpuserver.musetalk.weight_files import model_check
from gpuserver.musetalk.weight_files import model_files
from gpuserver.musetalk.weight_files.model_files import ModelFile, Need, Source, Version
need = Need("UNet V1.5", "draws", frozenset(Version), (ModelFile("unet/unet.pth", {len(CONTENT)},
    {hashlib.sha256(CONTENT).hexdigest()!r}, Source("official/weights", {COMMIT!r}, "unet.pth")),))
model_files.NEEDS = model_check.NEEDS = (need,)
from gpuserver.cli import main
main(["models", "download", "--yes"])
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with MUSETALK_BASE and with one small file as all that is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSETALK_BASE", str(tmp_path))
    for module in (model_files, model_check):
        monkeypatch.setattr(module, "NEEDS", (NEED,))
    return lambda *arguments, answer="": CliRunner().invoke(cli.app, ["models", *arguments], input=answer)


def put(base: Path, content: bytes = CONTENT) -> None:
    (base / "models" / "unet").mkdir(parents=True, exist_ok=True)
    (base / "models" / "unet" / "unet.pth").write_bytes(content)


def test_check_of_nothing_names_what_is_missing_and_fails(run: Run) -> None:
    result = run("check")
    assert result.exit_code == 1
    assert "missing" in result.stdout
    assert "unet/unet.pth" in result.stdout
    assert "MuseTalk V1.5 cannot serve; not usable: UNet V1.5." in result.stdout
    assert "gpuserver models download" in result.stdout


def test_check_of_all_that_is_needed_succeeds(run: Run, tmp_path: Path) -> None:
    put(tmp_path)
    result = run("check")
    assert result.exit_code == 0
    assert "not computed" in result.stdout
    assert "MuseTalk V1.5 can serve." in result.stdout
    assert "matches" in run("check", "--hash").stdout


def test_a_wrong_hash_or_size_fails(run: Run, tmp_path: Path) -> None:
    put(tmp_path, CONTENT[::-1])
    assert run("check").exit_code == 0
    result = run("check", "--hash")
    assert (result.exit_code, "wrong sha256" in result.stdout) == (1, True)
    put(tmp_path, CONTENT[:-1])
    result = run("check")
    assert (result.exit_code, "1499 instead of 1500 bytes" in result.stdout) == (1, True)


def test_without_a_folder_it_says_what_to_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSETALK_BASE")
    result = run("check")
    assert result.exit_code == 2
    assert "MUSETALK_BASE" in result.stderr


def test_checking_needs_no_torch() -> None:
    code = "import sys; from gpuserver.musetalk.weight_files import model_check, model_download, model_hub; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_download_shows_the_licences_and_does_nothing_without_consent(run: Run, tmp_path: Path, answer: str) -> None:
    result = run("download", answer=answer)
    assert result.exit_code == 1
    assert "creativeml-openrail-m" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_download_of_what_is_there_says_so(run: Run, tmp_path: Path) -> None:
    put(tmp_path)
    assert run("download").stdout == "Nothing is missing for MuseTalk V1.5.\n"


def test_download_honours_hf_endpoint(tmp_path: Path) -> None:
    with served(FakeHub({"official/weights/unet.pth": CONTENT})) as hub:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MUSETALK_BASE": str(tmp_path), "HF_ENDPOINT": hub.url}
        command = [sys.executable, "-c", DOWNLOAD]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"From {hub.url} into {tmp_path}/models:" in result.stdout
    assert (tmp_path / "models" / "unet" / "unet.pth").read_bytes() == CONTENT


def test_download_without_a_network_is_two_plain_lines(tmp_path: Path) -> None:
    with served(FakeHub()) as gone:
        address = gone.url
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MUSETALK_BASE": str(tmp_path), "HF_ENDPOINT": address}
    impatient = f"from gpuserver.musetalk.weight_files import model_download; model_download.LONGEST_PAUSE = 0.0\n{DOWNLOAD}"
    command = [sys.executable, "-c", impatient]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"unet/unet.pth cannot be downloaded: {address} does not answer (ConnectError)." in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_convert_of_nothing_says_so(run: Run, tmp_path: Path) -> None:
    assert run("convert").stdout == f"There is nothing to convert in {tmp_path}/models.\n"


GOLDEN = ROOT / "temp" / "tests" / "golden"


def test_verify_prints_a_line_per_array_and_succeeds(run: Run, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "bbox_cases.json", tmp_path)
    shutil.copy(GOLDEN / "audio_chunk_index.npz", tmp_path)
    result = run("verify", "--golden", str(tmp_path))
    assert result.exit_code == 0, result.stdout
    assert result.stdout.splitlines()[0].split() == ["array", "error", "tolerance", "ok"]
    with np.load(tmp_path / "audio_chunk_index.npz") as arrays:
        assert all(name in result.stdout for name in arrays)
    assert "MISS" not in result.stdout


def test_verify_fails_when_one_array_is_perturbed(run: Run, tmp_path: Path) -> None:
    with np.load(GOLDEN / "audio_chunk_index.npz") as stored:
        arrays = {name: np.array(stored[name]) for name in stored}
    name = min(arrays)
    arrays[name][0, 3] += 1
    np.savez(tmp_path / "audio_chunk_index.npz", **arrays)  # type: ignore[arg-type]
    result = run("verify", "--golden", str(tmp_path))
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stdout.splitlines() if "MISS" in line] == [name]


def test_verify_does_not_pass_over_what_it_does_not_know(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "surprise.npz", x=np.zeros(3))
    result = run("verify", "--golden", str(tmp_path))
    assert (result.exit_code, "unknown" in result.stdout) == (1, True)


def test_without_torch_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = ("gpuserver.musetalk.golden.check", "gpuserver.musetalk.weight_files.model_convert")
    for name in [name for name in sys.modules if name.startswith(heavy)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("golden.check", "weight_files.model_convert"):
        monkeypatch.setitem(sys.modules, f"gpuserver.musetalk.{name}", None)
        monkeypatch.delattr(f"gpuserver.musetalk.{name}", raising=False)
    for arguments in (["verify", "--golden", "."], ["convert"]):
        error = run(*arguments).exception
        assert isinstance(error, GpuserverError)
        assert "gpuserver[musetalk]" in error.advice


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md", "docs/real-mode.md"])
def test_the_commands_that_the_documents_print_exist(document: str) -> None:
    """They stand in sh blocks, which no test runs: they load gigabytes."""
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    named = [line.split()[2] for line in lines if line.startswith("gpuserver models ")]
    named += re.findall(r"`gpuserver models (\w+)", text)
    assert {"check", "convert", "download", "verify"} <= set(named)
    assert set(named) <= {command.name or getattr(command.callback, "__name__", "") for command in models.registered_commands}
