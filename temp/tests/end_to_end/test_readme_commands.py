"""The commands of the README do what the README says, run as printed against the real product, at its port here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import Clip, write_clip
from curl_line import as_curl_sends_it
from running_server import REPOSITORY, RunningServer, running_server

CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PRINTED_ADDRESS = "http://localhost:9000"


def printed_commands(program: str) -> list[str]:
    """The console lines of the README that call the program."""
    blocks = CONSOLE.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    return [line for block in blocks for line in block.splitlines() if line.startswith(f"{program} ")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("readme")
    with running_server(folder, VIDEO_DIRS=str(folder)) as server:
        yield server


def test_the_curl_lines_create_list_show_and_delete_avatars_and_open_a_session(server: RunningServer) -> None:
    video = write_clip(server.folder / "test.mp4", Clip(seconds=2))
    answers = [as_curl_sends_it(line, PRINTED_ADDRESS, server.url, video) for line in printed_commands("curl")]
    created, listed, shown, healthy, deleted, uploaded, session = answers
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 204, 201, 201]
    assert created.json()["status"] == "success"
    assert created.json()["mock"] is False
    assert listed.json() == {"total": 2, "avatars": ["demo", "test_avatar"]}
    assert shown.json()["frames"] == 50
    assert healthy.json()["status"] == "healthy"
    assert deleted.content == b""
    assert uploaded.json()["avatar_id"] == "ms_lee"
    assert session.json()["engine_url"].startswith("ws://")


def test_a_missing_video_is_replaced_by_the_sample_face_as_the_readme_says(server: RunningServer) -> None:
    answer = as_curl_sends_it(printed_commands("curl")[0], PRINTED_ADDRESS, server.url, server.folder / "missing.mp4")
    assert answer.status_code == 201
    assert answer.json()["mock"] is True


def test_the_gpuserver_lines_run_as_printed(tmp_path: Path) -> None:
    environment = os.environ | {"TTS": "hibari", "LLM": "echo", "PYTHONPATH": str(REPOSITORY)}
    for line in printed_commands("gpuserver"):
        command = [sys.executable, "-m", "gpuserver", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "hello.mp4").stat().st_size > 10_000
