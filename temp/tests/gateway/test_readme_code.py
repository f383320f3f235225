"""The code that README.md prints for the web back-end's developer runs as printed, at the port here."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeSettings
from curl_line import as_curl_sends_it
from gateway_rig import gateway_rig

README = Path(__file__).parents[3] / "README.md"
PRINTED = "http://localhost:8001"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def face(tmp_path: Path) -> Path:
    face = tmp_path / "face.mp4"
    face.write_bytes(b"a video")
    return face


async def test_the_python_code_creates_an_avatar_asks_and_deletes_it(make_settings: MakeSettings, tmp_path: Path, face: Path) -> None:
    (code,) = (block for block in _blocks("python") if PRINTED in block)
    async with gateway_rig(make_settings, tmp_path) as rig:
        command = [sys.executable, "-c", code.replace(PRINTED, str(rig.client.base_url).rstrip("/")), str(face)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert rig.service.manager.uploaded == [b"a video"]
        assert (rig.service.preloaded, rig.service.manager.ids()) == (["mr_wu"], [])
    assert "What is a prime number?" in done.stdout


async def test_the_curl_lines_do_what_they_say(make_settings: MakeSettings, tmp_path: Path, face: Path) -> None:
    lines = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith("curl ") and PRINTED in line]
    async with gateway_rig(make_settings, tmp_path) as rig:
        url = str(rig.client.base_url).rstrip("/")
        answers = [(await asyncio.to_thread(as_curl_sends_it, line, PRINTED, url, face)).text for line in lines]
        completed, streamed, created, listed, started, deleted = answers
        assert rig.service.manager.ids() == []
    assert "What is a prime number?" in completed
    assert streamed.endswith("data: [DONE]\n\n")
    assert '"avatar_id":"mr_kim"' in created
    assert "Teaches algebra" in listed
    assert ("is loaded" in started, "is deleted" in deleted) == (True, True)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_who_follows_the_readme_from_top_to_bottom_meets_no_avatar_that_exists(name: str) -> None:
    text = README.with_name(name).read_text(encoding="utf-8")
    made = re.findall(r'(?:/avatars/upload -F avatar_id=|/avatar/create -F name=|/avatar/create", data=\{"name": ")(\w+)', text)
    assert len(made) == len(set(made)) == 3
