"""The real product as a user starts it: unified_server.py in a folder of its own, on free ports, stopped cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 30.0  # generous: the machine may be busy with other tests
STOP_SECONDS = 10.0
KEPT_FROM_OUR_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """url: of the management API and the page. media_url: of the media server. log: what all processes have printed so far."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    log: Path
    media_url: str

    def process_id(self, name: str) -> int:
        """The id of the supervisor's child `name`: "media" or "management". Raises LookupError."""
        for child in _children(self.process.pid):
            if name.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return child
        raise LookupError(f"no {name} process runs")

    def worker_process_id(self, number: int) -> int:
        """The id of the media worker of this number, under MEDIA_WORKERS. Raises LookupError."""
        for child in _children(self.process_id("media")):
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if command[command.index(b"--worker") + 1] == str(number).encode():
                return child
        raise LookupError(f"no media worker {number} runs")


@contextmanager
def running_server(folder: Path, *, demo: bool = True, **settings: str) -> Iterator[RunningServer]:
    """Start the product with default settings but these; no voice and no language model that would need a network.

    demo: with the demo avatar. Raises AssertionError, with the log, where it does not get ready or does not end cleanly.
    """
    port, media_port = free_ports(2)
    environment = {name: os.environ[name] for name in KEPT_FROM_OUR_ENVIRONMENT if name in os.environ}
    environment |= {"MANAGEMENT_API_PORT": str(port), "MEDIA_PORT": str(media_port), "TTS": "hibari", "LLM": "echo"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    environment |= {"RATE_LIMIT": "off"} | settings  # tests call more often than people
    if demo:
        _run([sys.executable, "-m", "gpuserver", "avatars", "create", "demo", "--demo"], folder, environment)
    log = folder / "server.log"
    with _process([sys.executable, str(REPOSITORY / "unified_server.py")], folder, environment, log) as process:
        server = RunningServer(f"http://127.0.0.1:{port}", folder, process, log, f"http://127.0.0.1:{media_port}")
        assert httpx.get(f"{server.url}/health").status_code == 200, log.read_text()
        yield server


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _process(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """The process from its "ready:" line on; ended with SIGTERM."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipe) as process:  # type: ignore[call-overload]
        is_ready: Future[bool] = Future()
        copying = threading.Thread(target=_copy, args=(process, log, is_ready))
        copying.start()
        try:
            assert is_ready.result(READY_SECONDS), log.read_text()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                copying.join(STOP_SECONDS)
        assert code == 0, f"ended with {code}: {log.read_text()}"


def _copy(process: subprocess.Popen[str], log: Path, is_ready: Future[bool]) -> None:
    """Copy what the process prints to the log; tells whether it got ready before it ended."""
    assert process.stdout is not None
    with log.open("w") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            if line.startswith("ready:"):
                is_ready.set_result(True)
    if not is_ready.done():
        is_ready.set_result(False)


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
