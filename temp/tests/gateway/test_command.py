"""gpuserver gateway: what it refuses to start with, in plain lines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpuserver", "gateway", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_an_address_without_protection_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = _start(tmp_path, *arguments, GATEWAY_HOST="0.0.0.0")
    assert (result.returncode, result.stderr.startswith("GATEWAY_HOST=0.0.0.0 without API_KEYS")) == (1, True), result.stderr


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_port_in_use_names_the_setting(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = _start(tmp_path, *arguments, PORT=str(taken.getsockname()[1]), LLM="echo")
    assert (result.returncode, "or set PORT to another port." in result.stderr) == (1, True), result.stderr


def test_settings_that_cannot_work_end_it(tmp_path: Path) -> None:
    result = _start(tmp_path, LLM="openai", PORT="18931")
    assert (result.returncode, "LLM=openai needs OPENAI_BASE_URL." in result.stderr) == (1, True), result.stderr
    assert "Traceback" not in result.stderr
