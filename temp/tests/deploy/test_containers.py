"""The Dockerfile and the compose file, without an engine: linted, read, and the last stage's command run as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml
from running_server import free_ports

from gpuserver.config import Settings

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "deploy" / "docker-compose.yml"


@dataclass
class Stage:
    """What a stage of the Dockerfile says, with what it inherits."""

    image: str
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    copied: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def _stages() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    stage = Stage("")
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr] # else the test fails here
            above = stages.get(base, Stage(base))
            stage = Stage(above.image, dict(above.environment), above.user, list(above.copied), list(above.command), list(above.health))
            stages[name] = stage
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environment[name] = value
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            stage.copied += rest.split()[:-1]
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
    return stages


def test_hadolint_finds_no_fault() -> None:
    linted = subprocess.run([Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_avatar_service_is_the_last_stage_and_every_stage_is_pinned_and_without_root() -> None:
    stages = _stages()
    assert list(stages) == ["base", "gpuserver-cpu", "gpuserver-cuda", "avatar-service"]
    for name, stage in stages.items():
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", stage.image)
        if name != "base":
            assert stage.user == "10001:10001"
            assert stage.command and stage.health
    for name in ("gpuserver-cpu", "gpuserver-cuda"):
        assert "ALLOW_INSECURE" not in stages[name].environment  # needs API_KEYS
    for stage in stages.values():
        ours = {name for name in stage.environment if not name.startswith(("PYTHON", "PIP_", "NVIDIA_"))}
        assert ours <= {name.upper() for name in Settings.model_fields}


def test_all_that_the_package_is_built_from_is_copied() -> None:
    copied = _stages()["base"].copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in ("pyproject.toml", project["readme"], *project["license-files"]):
        assert any(Path(name).is_relative_to(each) for each in copied), name
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)


def test_the_last_stages_command_serves_and_its_health_check_passes(tmp_path: Path) -> None:
    """What `docker run -p 8001:8001` does, on a free port: open to all, and saying so."""
    stage = _stages()["avatar-service"]
    assert (stage.environment["PORT"], stage.environment["GATEWAY_HOST"]) == ("8001", "0.0.0.0")
    port, upstream = free_ports(2)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **stage.environment, "LLM": "echo"}
    environment |= {"PORT": str(port), "LIPSYNC_SERVICE_URL": f"http://127.0.0.1:{upstream}"}
    command = [sys.executable, *stage.command[1:]]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "listening" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert "open_to_every_machine" in said
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/api/chat/completion", json={"message": "Hello"}, trust_env=False).status_code == 200
        health = [sys.executable, *stage.health[1:]]
        without_upstream = subprocess.run(health, env=environment, capture_output=True, text=True, check=False)
        assert "503" in without_upstream.stderr  # the lip-sync service is not there
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("service", ["gpuserver", "avatar-service"])
def test_the_compose_file_builds_stages_that_exist_with_settings_that_exist(service: str) -> None:
    composed = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert set(composed["services"]) == {"gpuserver", "avatar-service", "ollama"}
    described = composed["services"][service]
    assert (COMPOSE.parent / described["build"]["context"]).resolve() == ROOT
    assert described["build"]["target"] in _stages()
    assert set(described["environment"]) <= {name.upper() for name in Settings.model_fields}


def test_ollama_is_pinned_and_reachable_from_this_machine_alone() -> None:
    ollama = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["ollama"]
    assert re.fullmatch(r"ollama/ollama:\d+\.\d+\.\d+", ollama["image"])
    assert all(port.startswith("127.0.0.1:") for port in ollama["ports"])
