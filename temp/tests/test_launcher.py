"""python3 unified_server.py where something is missing: one plain line, no traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import unified_server

ROOT = Path(__file__).resolve().parents[2]


def test_without_the_packages_one_plain_line_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-E", str(ROOT / "unified_server.py")]  # -S: without site-packages
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "The packages that gpuserver needs are not installed. Run: make run\n"
    assert result.stdout == ""


def test_an_old_python_is_told_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer"):
        unified_server.check_python_and_packages()


def test_where_all_is_installed_nothing_is_said() -> None:
    unified_server.check_python_and_packages()


def test_an_old_python_can_parse_the_launcher() -> None:
    text = (ROOT / "unified_server.py").read_text()
    compile(text, "unified_server.py", "exec", flags=0, dont_inherit=True)
    assert not re.search(r"\bmatch \w+:|:=|except\*", text)
