"""MuseTalk's networks, engine and renderer run where only torch and numpy are installed, and so does their benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Only torch, numpy, what torch itself needs, and this repository can be found, as if nothing else were installed.
BARE = """
import importlib.metadata, runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
needed = set("torch numpy filelock typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec setuptools".split())
needed |= {"torchgen", "functorch", "gpuserver", "bench"}
absent = set(importlib.metadata.packages_distributions()) - needed
class BareFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, BareFinder]
"""

MODULES = [
    "domain",
    "errors",
    "musetalk.networks.unet",
    "musetalk.networks.vae",
    "musetalk.networks.whisper",
    "musetalk.networks.bisenet",
    "musetalk.networks.inference",
    "musetalk.weight_files.weights",
    "musetalk.neural.whisper_features",
    "musetalk.neural.musetalk_engine",
    "musetalk.renderer",
    "musetalk.rendering.compositor",
]


def bare_python(code: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return run_python("-c", BARE + code, timeout=timeout)


def run_python(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)


def test_the_bare_machine_of_these_tests_has_no_other_packages() -> None:
    done = bare_python("import cv2")
    assert "No module named 'cv2'" in done.stderr


def test_the_engine_and_all_it_needs_can_be_imported_there() -> None:
    imports = "\n".join(f"import gpuserver.{module}" for module in MODULES)
    done = bare_python(imports + "\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_networks_are_made_without_torch_s_compiler() -> None:
    """Importing it takes seconds of every start and of every preparation."""
    code = """
import sys, torch
from gpuserver.musetalk.golden.networks import NETWORKS
with torch.device("meta"):
    made = [make() for make in NETWORKS.values()]
print("torch._dynamo" in sys.modules)
"""
    assert run_python("-c", code).stdout == "False\n"


# The benchmark's worker, started in the same bare way as the benchmark itself.
BARE_WORKER = """
import bench.musetalk_gpu as benchmark
started = benchmark.worker_command
benchmark.worker_command = lambda arguments: [sys.executable, "-c", {worker!r}, *started(arguments)[2:]]
sys.argv = ["bench/musetalk_gpu.py", "--device", "cpu", "--tiny", "--json", {out!r}]
sys.exit(benchmark.main())
"""


@pytest.mark.timeout(300)
def test_the_benchmark_gives_all_its_rows_there(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    worker = BARE + "sys.argv[0] = 'bench/musetalk_worker.py'\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    done = bare_python(BARE_WORKER.format(worker=worker, out=str(out)), timeout=290)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["errors"] == {}
    assert report["machine"].startswith("CPU, torch ")
    assert set(report["figures"]) == {
        "warm_up_s",
        "memory_gb",
        "avatar_memory_mb",
        "first_face_p50_ms",
        "first_face_p99_ms",
        "lateness_1_ms",
        "sessions",
        "fps_batch_1",
        "upstream_fps",
        "ratio",
        "unet_ms",
        "decode_ms",
        "whisper_ms",
        "fps_other_1",
        "fps_channels_first_1",
    }
    assert "| speed, batch 1 |" in done.stdout


def test_without_a_gpu_the_benchmark_says_so() -> None:
    done = run_python("bench/musetalk_gpu.py")
    assert done.returncode == 1
    assert "no GPU that torch can use" in done.stderr
