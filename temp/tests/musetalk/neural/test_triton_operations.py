"""Our Triton kernels: run by Triton's interpreter, which needs no GPU, and compiled for a Hopper GPU, which is not there either."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import interpreted_kernels
import numpy as np
import pytest
from interpreted_kernels import NORMS, SUM, Answers, Norm
from torch import nn

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds, and for tests on Linux x86-64")

HALVES, FLOATS, INTEGER, FLOAT = "*fp16", "*fp32", "i32", "fp32"
ARGUMENTS = {  # what the kernels are called with on a GPU
    **dict.fromkeys(("pixels", "normal", "others", "weights", "biases", "more"), HALVES),
    **dict.fromkeys(("means", "squares", "scale", "offset", "bias"), FLOATS),
    **dict.fromkeys(("area", "channels", "size"), INTEGER),
    "eps": FLOAT,
}
KERNELS: list[tuple[str, dict[str, int]]] = [
    ("_moments", {"SIZE": 1024, "TILE": 64, "BLOCK": 64}),
    ("_scale", {"SIZE": 4, "PADDED": 4, "PARTS": 64, "BIASED": True}),
    ("_scale", {"SIZE": 80, "PADDED": 128, "PARTS": 1, "BIASED": False}),
    ("_apply", {"TILE": 64, "BLOCK": 64, "ACTIVATE": True}),
    ("_add", {"TILE": 64, "BLOCK": 64}),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Of a process of its own: Triton decides when it is imported whether it interprets."""
    out = tmp_path_factory.mktemp("kernels") / "answers.npz"
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, interpreted_kernels.__file__, str(out)], check=True, env=environment, timeout=100)
    with np.load(out) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("case", [case for case in NORMS if not case.half], ids=str)
def test_the_norm_is_exact_wherever_the_numbers_lie(answers: Answers, case: Norm) -> None:
    exact = case.exact(nn.functional.silu if case.activate else lambda normal: normal)
    assert np.abs(answers[str(case)] - exact).max() < 2e-4


def test_half_precision_is_rounded_once(answers: Answers) -> None:
    case = next(case for case in NORMS if case.half)
    exact = case.exact(lambda normal: normal)
    assert answers[str(case)].dtype == np.float16
    assert (np.abs(answers[str(case)].astype(np.float64) - exact) <= np.abs(exact) * 2**-11 + 1e-5).all()


def test_the_sum_adds_the_bias_in_place(answers: Answers) -> None:
    one, other, bias = SUM
    assert np.abs(answers["sum"] - (one + other + bias[:, None, None]).numpy()).max() < 1e-6
    assert answers["sum is in place"]


def test_what_is_no_number_stays_none(answers: Answers) -> None:
    assert np.isnan(answers["not a number"][0, 0]).all()
    assert np.isfinite(answers["not a number"][0, 1]).all()


def test_results_lie_as_convolutions_want_them(answers: Answers) -> None:
    assert answers["layouts"].all()


def test_sizes_that_do_not_fill_tiles_are_refused(answers: Answers) -> None:
    assert answers["refusals"].tolist() == [
        "48 channels of 8 x 8 pixels do not fill tiles of 64 pixels",
        "32 channels of 8 x 5 pixels do not fill tiles of 64 pixels",
    ]


def test_the_kernels_are_compiled_for_a_hopper_gpu_with_wide_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = importlib.import_module("gpuserver.musetalk.neural.triton_operations")
    for name, constants in KERNELS:
        kernel = getattr(module, name)
        arguments = {argument: "constexpr" if argument in constants else ARGUMENTS[argument] for argument in kernel.arg_names}
        known = {(kernel.arg_names.index(constant),): value for constant, value in constants.items()}
        whole = {(index,): [["tt.divisibility", 16]] for index, kind in enumerate(arguments.values()) if kind[0] in "*i"}
        source = ASTSource(kernel, arguments, known, whole)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        assert compiled.asm["cubin"]
        assert name == "_scale" or "ld.global.v4" in compiled.asm["ptx"], name
