"""MUSETALK_CONDA_ENV, with prefixes whose bin/python is a small shell script."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver import interpreter
from gpuserver.interpreter import OWN, Interpreter, choose_interpreter, take_over
from gpuserver.media.server import create_app
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.preparing.child_process import child_environment

ROOT = Path(__file__).resolve().parents[2]
MakePrefix = Callable[[str], Path]


@pytest.fixture
def make_prefix(tmp_path: Path) -> MakePrefix:
    """A prefix whose bin/python runs these lines of shell."""

    def make(lines: str) -> Path:
        python = tmp_path / "env" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{lines}\n")
        python.chmod(0o755)
        return tmp_path / "env"

    return make


def shortfall(prefix: Path, seconds: float = 60) -> str:
    chosen = choose_interpreter(prefix, seconds=seconds)
    assert chosen.path == sys.executable
    assert chosen.shortfall is not None
    assert chosen.shortfall.startswith("MUSETALK_CONDA_ENV is not used, because ")
    assert chosen.shortfall.endswith("the server's own Python does the work.")
    return chosen.shortfall


def test_without_the_setting_it_is_our_own() -> None:
    assert choose_interpreter(None) is OWN
    assert OWN.shortfall is None


def test_a_python_that_can_import_us_is_taken(make_prefix: MakePrefix) -> None:
    prefix = make_prefix(f'exec {shlex.quote(sys.executable)} "$@"')
    assert choose_interpreter(prefix) == Interpreter(str(prefix / "bin" / "python"))


def test_a_python_without_our_packages_is_not_taken_and_its_last_words_say_why(make_prefix: MakePrefix) -> None:
    prefix = make_prefix(f'exec {shlex.quote(sys.executable)} -S "$@"')  # without site-packages
    assert "No module named" in shortfall(prefix)


def test_an_old_python_is_named_as_such(make_prefix: MakePrefix) -> None:
    old = "import sys; sys.version_info = (3, 10, 4); exec(sys.argv[2])"
    prefix = make_prefix(f'exec {shlex.quote(sys.executable)} -c {shlex.quote(old)} "$@"')
    assert "it is Python 3.10, and 3.11 or newer is needed" in shortfall(prefix)


def test_a_python_that_hangs_is_given_up(make_prefix: MakePrefix) -> None:
    assert "took longer than 0 s" in shortfall(make_prefix("exec sleep 1000"), seconds=0.3)


def test_a_python_that_crashes_is_not_taken(make_prefix: MakePrefix) -> None:
    assert "exit code -9" in shortfall(make_prefix("kill -9 $$"))


def test_a_prefix_without_python_says_so(tmp_path: Path) -> None:
    assert "there is no bin/python in it" in shortfall(tmp_path)


def test_a_file_that_is_no_program_says_so(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_bytes(b"\x00\x01")
    python.chmod(0o755)
    assert "cannot be started" in shortfall(tmp_path)


def test_it_runs_this_code_with_its_own_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Interpreter("/opt/env/bin/python")
    assert other.environment({"PYTHONPATH": "/more", "A": "b"}) == {"PYTHONPATH": f"{ROOT}{os.pathsep}/more", "A": "b"}
    installed = tmp_path / "site-packages" / "gpuserver" / "interpreter.py"
    monkeypatch.setattr(interpreter, "__file__", str(installed))
    assert other.environment({"PYTHONPATH": "/ours", "VIRTUAL_ENV": "/ours", "A": "b"}) == {"A": "b"}
    assert OWN.environment({})["PYTHONPATH"] == str(installed.parents[1])


def test_our_own_python_does_not_start_anew() -> None:
    take_over(OWN, ["media"])
    take_over(Interpreter(sys.executable, "why"), ["media"])


def test_the_media_server_goes_on_in_the_other_python(make_prefix: MakePrefix, tmp_path: Path) -> None:
    prefix = make_prefix(f'[ "$1" = -c ] || echo "$@" > {tmp_path}/started')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MUSETALK_CONDA_ENV": str(prefix)}
    command = [sys.executable, "-m", "gpuserver", "media", "--supervised"]
    subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, check=True)
    assert (tmp_path / "started").read_text() == "-m gpuserver media --chosen-python --supervised\n"


async def test_health_says_why_the_other_python_is_not_used(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> None:
    app = create_app(make_settings(tts="hibari", llm="echo", internal_secret="s"), interpreter=Interpreter(sys.executable, "It is broken."))
    client = await aiohttp_client(app)
    async with client.get("/health") as answer:
        assert (await answer.json())["components"]["python"] == {"fallback": "It is broken."}


def test_avatars_are_prepared_by_the_other_python(
    make_prefix: MakePrefix, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons: list[Interpreter] = []

    class Stop(Exception):
        pass

    def note(*_: object, python: Interpreter, **__: object) -> None:
        pythons.append(python)
        raise Stop

    monkeypatch.setattr(avatar_manager, "run_preparation", note)
    prefix = make_prefix("exit 0")
    manager = AvatarManager(make_settings(musetalk_conda_env=prefix))
    manager.start()
    for _ in range(2):
        with pytest.raises(Stop):
            manager.create_demo()
    assert pythons == [Interpreter(str(prefix / "bin" / "python"))] * 2


def test_the_preparing_child_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_SECRET", "s")
    environment = child_environment(Interpreter("/opt/env/bin/python"))
    assert "INTERNAL_SECRET" not in environment
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
