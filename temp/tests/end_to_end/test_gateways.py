"""The Avatar Service as real processes: two gateways behind nginx serve one conversation; workers share a port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from running_server import KEPT_FROM_OUR_ENVIRONMENT, READY_SECONDS, REPOSITORY, STOP_SECONDS, RunningServer, free_ports
from scripted_model import ScriptedModel, scripted_model

from gpuserver.musetalk.avatar_manager import SAMPLE_FACE

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_max_body_size 500m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream gateways {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
            add_header X-Gateway $upstream_addr always;
        }}
    }}
}}
"""


@contextmanager
def process(folder: Path, command: list[str], port: int, *, said: Path | None = None, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens at the port, from then on; ended with SIGTERM, cleanly. said: takes what it prints."""
    folder.mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in KEPT_FROM_OUR_ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"} | settings
    with (
        said.open("wb") if said else nullcontext() as output,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.PIPE) as running,
    ):
        try:
            _wait_for(port, running)
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=STOP_SECONDS)
    assert running.returncode == 0, errors.decode()


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while running.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)  # another process: no event tells
        else:
            return
    running.kill()
    raise AssertionError(f"nothing listens at {port}")


def gpuserver(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpuserver", *arguments]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with scripted_model({"What is two and two?": "Four, of course.", "And twice that?": "Eight."}) as model:
        yield model


def test_two_gateways_behind_nginx_serve_one_conversation(tmp_path: Path, model: ScriptedModel) -> None:
    assert NGINX, "install it first: sudo apt install nginx-light"
    media, one, two, port = free_ports(4)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, one=one, two=two, port=port))
    ours = {"LIPSYNC_SERVICE_URL": f"http://127.0.0.1:{media}", "LLM": "openai", "OPENAI_BASE_URL": model.url}
    with ExitStack() as stack:
        stack.enter_context(process(tmp_path / "media", gpuserver("media"), media, MEDIA_PORT=str(media), LLM="echo", TTS="hibari"))
        for name, own in (("one", one), ("two", two)):
            stack.enter_context(process(tmp_path / name, gpuserver("gateway"), own, said=None, PORT=str(own), **ours))
        stack.enter_context(process(tmp_path / "nginx", [NGINX, "-c", str(configuration)], port))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False))

        served = []
        history: list[dict[str, str]] = []
        for question in ("What is two and two?", "And twice that?"):
            answer = client.post("/api/chat/completion", json={"message": question, "conversation_history": history})
            assert answer.status_code == 200, answer.text
            served.append(answer.headers["X-Gateway"])
            history += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.json()["response"].strip()}]
        assert len(set(served)) == 2
        assert [item["content"] for item in history[1::2]] == ["Four, of course.", "Eight."]
        assert model.requests[-1]["messages"][:2] == history[:2]

        stream = client.post("/api/chat/stream", json={"message": "And twice that?", "conversation_history": history[:2]})
        assert [line for line in stream.text.splitlines() if line][-1] == "data: [DONE]"

        face = {"prompt_face": ("face.png", SAMPLE_FACE.read_bytes(), "image/png")}
        created = client.post("/api/avatar/create", data={"name": "anna", "avatar_blur": False, "description": "a face"}, files=face)
        assert (created.status_code, created.json()["engine"]) == (200, "warp"), created.text
        assert client.get("/api/avatar/list").json()["anna"]["description"] == "a face"
        assert client.post("/api/avatar/start", data={"avatar_name": "anna"}).json()["status"] == "success"
        deleted = client.request("DELETE", "/api/avatar/delete", data={"name": "anna"})
        assert deleted.status_code == 200
        assert deleted.headers["X-Gateway"] != created.headers["X-Gateway"]  # in turn: the third call after the creation
        assert _names(tmp_path / "one") == _names(tmp_path / "two") == set()


def test_workers_share_a_port_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    said = tmp_path / "said"
    with (
        process(tmp_path / "gateway", gpuserver("gateway", "--workers", "2"), port, said=said, PORT=str(port), LLM="echo") as supervisor,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        _wait_until_said(said, "2 workers")
        first = _children(supervisor.pid, 2)
        os.kill(first[0], signal.SIGKILL)
        second = _children(supervisor.pid, 2, without=first[0])
        assert first[1] in second
        assert client.post("/api/chat/completion", json={"message": "Hello"}).json()["model"] == "echo"
    for child in second:
        assert not Path(f"/proc/{child}").exists()


def test_the_documented_browser_code_asks_and_shows_an_avatar_through_the_proxy(browser: Browser, shared_server: RunningServer) -> None:
    (code,) = re.findall(r"```js\n(.*?)```", (REPOSITORY / "docs" / "avatar-service.md").read_text(encoding="utf-8"), re.DOTALL)
    page = browser.new_page()
    try:
        page.goto(shared_server.url)
        said = page.evaluate(f"async () => {{ {code}; let said = ''; await ask('Hello there', [], text => said += text); return said; }}")
        assert "Hello there" in said
        size = page.evaluate(
            f"""async () => {{
                {code}
                const video = document.body.appendChild(Object.assign(document.createElement("video"), {{autoplay: true, muted: true}}));
                const shown = new Promise(resolve => video.requestVideoFrameCallback(resolve));
                const number = await show(video, "demo");
                await shown;
                return [Number.isInteger(number), video.videoWidth];
            }}"""
        )
        assert size == [True, 512]
    finally:
        page.close()


def _wait_until_said(said: Path, words: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while words not in said.read_text():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)  # another process: no event tells


def _children(pid: int, count: int, *, without: int = 0) -> list[int]:
    """The children of the process, as soon as there are so many without that one."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(children) == count and without not in children:
            return children
        time.sleep(0.05)  # another process: no event tells
    raise AssertionError(f"there are not {count} workers")
