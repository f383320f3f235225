"""The Makefile's promises that can be checked without the network: what it would run, and which Python it takes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    env.pop("MAKEFLAGS", None)
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def _clone(folder: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    "target", ["run", "test", "check", "bench", "soak", "fuzz", "openapi", "screenshots", "install-service", "uninstall-service", "clean"]
)
def test_help_names_every_command_and_make_knows_it(target: str) -> None:
    assert f"make {target} " in _make().stdout
    assert _make("-n", target).returncode == 0


def test_a_folder_named_like_a_command_does_not_hide_it() -> None:
    """soak/ and bench/ are folders: make would take them for made."""
    text = (ROOT / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()}
    commands = set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))
    assert {name for name in commands if (ROOT / name).is_dir()} <= commands == phony


def test_run_in_a_clean_clone_installs_makes_the_demo_avatar_and_serves(tmp_path: Path) -> None:
    plan = _make("-n", "run", folder=_clone(tmp_path)).stdout
    steps = [plan.index(step) for step in ("-m venv .venv", "install -e '.[espeak]'", "avatars create --demo", "unified_server.py")]
    assert steps == sorted(steps)


def test_an_install_is_done_once_until_pyproject_changes(tmp_path: Path) -> None:
    clone = _clone(tmp_path)
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").touch()
    (clone / ".venv" / "installed").touch()
    assert "install -e" not in _make("-n", "run", folder=clone).stdout
    newer = (clone / ".venv" / "installed").stat().st_mtime + 10
    os.utime(clone / "pyproject.toml", (newer, newer))
    assert "install -e" in _make("-n", "run", folder=clone).stdout


def test_without_a_suitable_python_one_plain_line_says_what_to_install(tmp_path: Path) -> None:
    clone, tools = _clone(tmp_path), tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "id"):  # no python, no apt-get
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    make = Path("/usr/bin/make")
    result = subprocess.run(
        [make, f"SHELL={tools / 'bash'}", "run"], cwd=clone, env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "sudo apt install python3 python3-venv" in result.stderr
    assert not (clone / ".venv").exists()


def test_ci_runs_check_and_test_and_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert re.findall(r"^make (\w+)$", text, re.MULTILINE) == ["check", "test"]
