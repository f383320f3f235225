"""The systemd units: what systemd itself says of them, where make puts them, and that the product works inside their limits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from system_calls import allowed_calls, settings_of

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = ("gpuserver-media.service", "gpuserver-management.service")
MOST_EXPOSURE = 2.0  # of 10
SYSTEM_CALLS = Path(__file__).parents[1] / "system_calls.py"


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "install it first: sudo apt install systemd"
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def _make(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """What make install-service puts below DESTDIR, the packages left out: those need the network."""
    _make("-o", "service-package", "install-service", f"DESTDIR={tmp_path}")
    return tmp_path


def test_systemd_finds_no_fault_in_the_units(staged: Path, tmp_path: Path) -> None:
    units = []
    for name in UNITS:
        unit = tmp_path / name
        unit.write_text((staged / "etc/systemd/system" / name).read_text().replace("/opt/gpuserver/bin/python", sys.executable))
        units.append(unit)
    checked = _analyze("verify", *units)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_little_is_exposed(name: str) -> None:
    checked = _analyze("security", "--offline=true", "--no-pager", FOLDER / name)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", checked.stdout)
    assert found, checked.stdout + checked.stderr
    assert float(found[1]) <= MOST_EXPOSURE


def test_both_units_share_account_secret_and_avatars() -> None:
    for setting in ("User", "WorkingDirectory", "StateDirectory", "Environment", "EnvironmentFile", "UMask"):
        media, management = (settings_of(FOLDER / name, setting) for name in UNITS)
        assert media == management != [], setting


def test_a_drop_in_gives_the_management_api_what_musetalk_needs(tmp_path: Path) -> None:
    media, drop_in = FOLDER / "gpuserver-media.service", FOLDER / "musetalk.conf"
    for setting in ("DevicePolicy", "DeviceAllow"):
        assert settings_of(drop_in, setting) == settings_of(media, setting) != []
    unit = tmp_path / "gpuserver-management.service"
    unit.write_text((FOLDER / unit.name).read_text().replace("/opt/gpuserver/bin/python", sys.executable))
    folder = tmp_path / "gpuserver-management.service.d"
    folder.mkdir()
    shutil.copy(drop_in, folder)
    checked = _analyze("verify", unit)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_an_install_goes_below_destdir_and_is_taken_back(staged: Path) -> None:
    files = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert files == {
        *(f"etc/systemd/system/{name}" for name in UNITS),
        "etc/sysusers.d/gpuserver.conf",
        "etc/gpuserver/gpuserver.env",
        "opt/gpuserver/share/doc/gpuserver/operations.md",
        "opt/gpuserver/share/doc/gpuserver/musetalk.conf",
    }
    assert (staged / "etc/gpuserver/gpuserver.env").stat().st_mode & 0o777 == 0o600
    _make("uninstall-service", f"DESTDIR={staged}")
    assert [path.name for path in staged.rglob("*") if path.is_file()] == ["gpuserver.env"]


def test_an_update_keeps_the_operators_settings(staged: Path) -> None:
    settings = staged / "etc/gpuserver/gpuserver.env"
    settings.write_text("LOG_LEVEL=debug\n")
    _make("-o", "service-package", "install-service", f"DESTDIR={staged}")
    assert settings.read_text() == "LOG_LEVEL=debug\n"


def test_another_prefix_reaches_the_units(tmp_path: Path) -> None:
    _make("-o", "service-package", "install-service", f"DESTDIR={tmp_path}", "PREFIX=/srv/faces")
    for name in UNITS:
        text = (tmp_path / "etc/systemd/system" / name).read_text()
        assert "ExecStart=/srv/faces/bin/python -m gpuserver" in text
        assert "/opt/" not in text


def test_every_setting_in_the_env_file_exists() -> None:
    from gpuserver.config import Settings

    named = set(re.findall(r"^#?([A-Z_]+)=", (FOLDER / "gpuserver.env").read_text(), re.MULTILINE))
    assert named
    assert named <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", UNITS)
def test_the_filter_refuses_what_it_is_there_for(name: str) -> None:
    """It is loaded for real, so that the test below means something."""
    assert not allowed_calls(FOLDER / name) & {"ptrace", "mount", "bpf", "init_module", "reboot", "chroot", "setuid"}
    command: list[str | Path] = [sys.executable, SYSTEM_CALLS, FOLDER / name, "chroot", "/", "true"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr


def test_the_product_works_inside_the_filters(tmp_path: Path) -> None:
    """Preparation as the management API runs it, voice, lips and film as the media server does."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TTS": "hibari", "HOME": str(tmp_path)}
    for name, command in (
        ("gpuserver-management.service", ["avatars", "create", "demo", "--demo"]),
        ("gpuserver-media.service", ["render", "--text", "Good morning.", "out.mp4"]),
    ):
        confined: list[str | Path] = [sys.executable, SYSTEM_CALLS, FOLDER / name, sys.executable, "-m", "gpuserver", *command]
        done = subprocess.run(confined, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 10_000
