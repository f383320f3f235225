"""The supervisor: with small fakes of its servers, and once with the real ones."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gpuserver.errors import CannotStart
from gpuserver.startup_report import describe, shortcomings
from gpuserver.unified_server import BackOff, Child, Supervisor

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; far beyond what is needed, for busy machines

# A fake server: appends a line to a file at each start, says that it is ready, lives until a signal or the supervisor's end.
FAKE_SERVER = """
import os, signal, sys
from gpuserver.web.lifeline import Lifeline
signal.signal(signal.SIGTERM, signal.SIG_DFL)
lifeline = Lifeline()
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
lifeline.ready()
signal.pause()
"""
BEATING_SERVER = FAKE_SERVER.replace(
    "signal.pause()",
    """
import asyncio
async def serve():
    lifeline.beat()
    await (asyncio.sleep(0.2) if sys.argv[1].endswith("hangs") else asyncio.Event().wait())
    signal.pause()
asyncio.run(serve())
""",
)
STUBBORN_SERVER = FAKE_SERVER.replace("signal.SIGTERM, signal.SIG_DFL", "signal.SIGTERM, signal.SIG_IGN")
FAILING_SERVER = "raise SystemExit(3)"


def test_back_off_doubles_to_ten_seconds_and_begins_again_after_a_healthy_while() -> None:
    back_off = BackOff()
    assert [back_off.after(uptime=1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert back_off.after(uptime=31.0) == 0.5
    assert back_off.after(uptime=1.0) == 1.0


async def test_a_process_that_cannot_be_started_for_lack_of_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, starts = asyncio.create_subprocess_exec, 0

    async def start_but_for_the_second_time(*command: str, **options: Any) -> asyncio.subprocess.Process:
        nonlocal starts
        starts += 1
        if starts == 2:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_but_for_the_second_time)
    monkeypatch.setattr(BackOff, "FIRST_SECONDS", 0.01)
    child = Child("media", [sys.executable, "-S", "-c", "import os, time; os.write(0, b'ready\\n'); time.sleep(600)"], os.environ)
    running = asyncio.create_task(child.run())
    async with asyncio.timeout(PATIENCE):
        for count in (1, 3):
            while not (child.serves and starts == count):
                assert not running.done()
                await asyncio.sleep(0.01)
            child.kill()
        child.stay_down()
        await running


def test_shortcomings_are_the_components_own_sentences() -> None:
    health: dict[str, object] = {
        "components": {
            "voice": {"voice": "edge-tts", "fallback": "edge-tts is not reachable: hibari speaks."},
            "language_model": {"model": "m", "fallback": None, "message": None},
            "media_server": {"status": "down", "message": "The media server does not answer."},
            "odd": "text",
        }
    }
    assert describe(health) == ["voice: edge-tts is not reachable: hibari speaks.", "media server: The media server does not answer."]
    assert describe({}) == []


class StartingServer(BaseHTTPRequestHandler):
    """Its /health is 503 twice, then 200."""

    asked = 0

    def do_GET(self) -> None:
        StartingServer.asked += 1
        short = {"media_server": {"message": "It starts."}} if StartingServer.asked < 3 else {"voice": {"fallback": "hibari speaks."}}
        body = json.dumps({"components": short}).encode()
        self.send_response(503 if StartingServer.asked < 3 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


def test_a_server_that_still_starts_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StartingServer, "asked", 0)
    with HTTPServer(("127.0.0.1", 0), StartingServer) as server:
        answering = threading.Thread(target=server.serve_forever)
        answering.start()
        assert shortcomings("127.0.0.1", server.server_port) == ["voice: hibari speaks."]
        server.shutdown()
        answering.join()


class Fleet:
    """A supervisor with fake servers."""

    def __init__(self, folder: Path, **scripts: str):
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        commands = {name: [sys.executable, "-c", script, str(folder / name)] for name, script in scripts.items()}
        self.supervisor = Supervisor([Child(name, command, environment) for name, command in commands.items()])
        self.greeted = asyncio.Event()

    async def greet(self) -> None:
        self.greeted.set()

    async def pid(self, name: str, start: int) -> int:
        """The process id of the server's start number `start` (from 0)."""
        async with asyncio.timeout(PATIENCE):
            while len(lines := self._lines(name)) <= start:  # noqa: ASYNC110 - another process writes the file
                await asyncio.sleep(0.02)
        return int(lines[start])

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")] if file.exists() else []


@asynccontextmanager
async def _running(fleet: Fleet) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(fleet.supervisor.run(fleet.greet))
    try:
        async with asyncio.timeout(PATIENCE):
            await fleet.greeted.wait()
        yield task
    finally:
        fleet.supervisor.stop(signal.SIGTERM)
        await asyncio.wait([task], timeout=PATIENCE)
        task.cancel()


def _alive(pid: int) -> bool:
    """Whether the process runs; a zombie that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _dies(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while _alive(pid):  # noqa: ASYNC110 - another process: no event tells
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_all(tmp_path: Path, number: signal.Signals) -> None:
    fleet = Fleet(tmp_path, one=FAKE_SERVER, two=FAKE_SERVER)
    async with _running(fleet) as task:
        pids = [await fleet.pid("one", 0), await fleet.pid("two", 0)]
        fleet.supervisor.stop(number)
        await asyncio.wait_for(task, PATIENCE)
    assert not any(_alive(pid) for pid in pids)


async def test_a_killed_server_is_started_again_and_the_other_one_keeps_running(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=FAKE_SERVER, two=FAKE_SERVER)
    async with _running(fleet):
        other = await fleet.pid("two", 0)
        for start in range(2):
            os.kill(await fleet.pid("one", start), signal.SIGKILL)
        assert _alive(await fleet.pid("one", 2))
        assert _alive(other)
        assert len(fleet._lines("two")) == 1


async def test_a_server_that_hangs_says_where_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpuserver.unified_server.SILENCE_SECONDS", 6.0)  # three beats
    fleet = Fleet(tmp_path, hangs=BEATING_SERVER, beats=BEATING_SERVER, tells_nothing=FAKE_SERVER)
    with capture_logs() as logs:
        async with _running(fleet):
            await fleet.pid("hangs", 1)
    assert [line["process"] for line in logs if line["event"] == "process_hangs"] == ["hangs"]
    assert "in serve" in capfd.readouterr().err
    assert [len(fleet._lines(name)) for name in ("beats", "tells_nothing")] == [1, 1]


async def test_a_server_that_is_stopped_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.unified_server.SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("gpuserver.unified_server.ABORT_SECONDS", 0.01)
    fleet = Fleet(tmp_path, one=BEATING_SERVER.replace("lifeline.beat()", "lifeline.beat(); os.kill(os.getpid(), signal.SIGSTOP)"))
    async with _running(fleet):
        await fleet.pid("one", 1)


async def test_a_server_that_hangs_before_it_serves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.unified_server.START_SECONDS", 0.1)
    fleet = Fleet(tmp_path, one="import time; time.sleep(600)")
    with pytest.raises(CannotStart, match=r"ended before it was ready \(exit code -6\)"):
        await asyncio.wait_for(fleet.supervisor.run(fleet.greet), PATIENCE)


async def test_what_does_not_stop_is_killed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=FAKE_SERVER, two=STUBBORN_SERVER)
    async with _running(fleet) as task:
        stubborn = await fleet.pid("two", 0)
        with capture_logs() as logs:
            fleet.supervisor.stop(signal.SIGTERM)
            await asyncio.wait_for(task, PATIENCE)
        assert not _alive(stubborn)
        assert [line["processes"] for line in logs if line["event"] == "killing_what_does_not_stop"] == [["two"]]


async def test_the_first_server_ends_before_the_others_are_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.unified_server.FIRST_SECONDS", PATIENCE)
    monkeypatch.setattr("gpuserver.unified_server.KILL_AFTER_SECONDS", PATIENCE * 2)
    last_words = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(open(sys.argv[1], 'a').write(f'{time.monotonic()}\\n') and 0))"
    script = "import time" + FAKE_SERVER.replace("signal.signal(signal.SIGTERM, signal.SIG_DFL)", last_words)
    fleet = Fleet(tmp_path, one=script, two=script)
    async with _running(fleet) as task:
        fleet.supervisor.stop(signal.SIGTERM)
        await asyncio.wait_for(task, PATIENCE)
    assert float(fleet._lines("one")[-1]) < float(fleet._lines("two")[-1])


async def test_a_second_signal_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.unified_server.KILL_AFTER_SECONDS", PATIENCE * 2)
    fleet = Fleet(tmp_path, one=STUBBORN_SERVER)
    async with _running(fleet) as task:
        fleet.supervisor.stop(signal.SIGINT)
        fleet.supervisor.stop(signal.SIGINT)
        await asyncio.wait_for(task, PATIENCE)


async def test_a_server_that_cannot_start_ends_all_with_a_plain_error(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=FAKE_SERVER, two=FAILING_SERVER)
    with pytest.raises(CannotStart, match=r"two server ended before it was ready \(exit code 3\)"):
        await asyncio.wait_for(fleet.supervisor.run(fleet.greet), PATIENCE)
    assert not fleet.greeted.is_set()
    assert not any(_alive(int(pid)) for pid in fleet._lines("one"))


async def test_children_of_a_killed_server_are_swept_up(tmp_path: Path) -> None:
    grandchild = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); open(sys.argv[1] + '.sleep', 'w').write(f'{child.pid}\\n')"
    )
    fleet = Fleet(tmp_path, one=grandchild + FAKE_SERVER)
    async with _running(fleet):
        server = await fleet.pid("one", 0)
        sleeper = await fleet.pid("one.sleep", 0)
        os.kill(server, signal.SIGKILL)
        await _dies(sleeper)


# ---------------------------------------------------------------- the real servers


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _served(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    ours = {"MANAGEMENT_API_PORT": str(port), "MEDIA_PORT": str(_free_port()), "LLM": "echo", "TTS": "hibari", "LOG_FORMAT": "json"}
    command = [sys.executable, str(ROOT / "unified_server.py")]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **ours}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _children(pid: int) -> dict[str, int]:
    """The supervised servers of a supervisor, by name."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in pids}
    return {command[command.index("gpuserver") + 1]: child for child, command in commands.items()}


def _health(port: int) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def _until_health(port: int, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await asyncio.to_thread(_health, port))[0] != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_the_real_servers_start_survive_a_kill_and_stop_together(tmp_path: Path) -> None:
    port = _free_port()
    with _served(tmp_path, port) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == f"ready: http://127.0.0.1:{port}\n"
        assert (await asyncio.to_thread(_health, port))[0] == 200
        before = _children(process.pid)
        assert set(before) == {"management", "media"}

        os.kill(before["media"], signal.SIGKILL)
        await _until_health(port, 503)  # the management API answers meanwhile
        await _until_health(port, 200)
        after = _children(process.pid)
        assert after["management"] == before["management"]
        assert after["media"] != before["media"]

        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
        assert not any(_alive(pid) for pid in after.values())


async def test_the_real_servers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    port = _free_port()
    with _served(tmp_path, port) as process:
        assert process.stdout is not None
        assert "ready" in await asyncio.to_thread(process.stdout.readline)
        children = _children(process.pid)
        process.kill()
        for pid in children.values():
            await _dies(pid)


def test_a_port_in_use_is_one_plain_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {**os.environ, "MANAGEMENT_API_PORT": str(port)}
        command = [sys.executable, str(ROOT / "unified_server.py")]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use." in result.stderr
    assert "Traceback" not in result.stderr
