"""The renderer processes behind the router: kept running, shown in /health and /metrics, stopped with it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import MakeSettings
from fake_workers import FakeProcess
from prometheus_client import generate_latest
from render_service_rig import ServiceRig, prepared_job

from gpuserver.errors import NoDevice
from gpuserver.media_router import server
from gpuserver.media_router.health import painters
from gpuserver.media_router.metrics import Labelled, renderer_metrics
from gpuserver.media_router.renderers import RendererProcess, Renderers, listen
from gpuserver.media_router.server import make_fleet, make_renderers
from gpuserver.musetalk.render_service.service import Painter
from gpuserver.unified_server import Child, package_environment


@contextmanager
def rigs(*made: ServiceRig) -> Iterator[list[RendererProcess]]:
    """Renderer processes that are threads of this one; the router has their paths."""
    try:
        yield [RendererProcess(number, str(number - 1), rig.path, rig.listening.dup(), FakeProcess()) for number, rig in enumerate(made, 1)]
    finally:
        for rig in made:
            rig.close()


@asynccontextmanager
async def running(renderers: Renderers) -> AsyncIterator[None]:
    life = renderers.run(web.Application())
    await anext(life)
    try:
        yield
    finally:
        with pytest.raises(StopAsyncIteration):
            await anext(life)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


@dataclass(frozen=True, slots=True)
class Started:
    """What a process is started with."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: Sequence[int] = ()


def _fails() -> list[Painter]:
    raise NoDevice("torch sees no GPU.", advice="Buy one.")


async def test_each_process_says_how_it_is() -> None:
    paints, fails = ServiceRig(), ServiceRig(load=_fails)
    with rigs(paints, fails) as processes:
        renderers = Renderers(processes)
        async with running(renderers):
            worker = await asyncio.to_thread(paints.join)
            await asyncio.wrap_future(worker.submit(prepared_job(80)))
            with pytest.raises(NoDevice):
                await asyncio.to_thread(fails.join)
            first, second = await renderers.statuses()
    assert first.items() >= {"renderer": 1, "gpu": "0", "restarts": 0, "state": "ready", "workers": 1, "painted": 1, "batches": 1}.items()
    assert (
        second.items() >= {"renderer": 2, "gpu": "1", "state": "fallback", "fallback": "torch sees no GPU. Buy one.", "workers": 0}.items()
    )


async def test_a_process_that_is_away_or_silent_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.media_router.renderers.ANSWER_SECONDS", 0.05)
    away, silent = ServiceRig(), ServiceRig()
    silent.end()
    with rigs(away, silent) as processes:
        assert isinstance(processes[1].process, FakeProcess)
        processes[1].process.serves = True
        assert [status["state"] for status in await Renderers(processes).statuses()] == ["restarting", "silent"]
        silent.start_again()
        for each in processes:
            each.listening.close()


def test_health_is_honest_about_processes_that_do_not_paint() -> None:
    ready = {"renderer": 1, "state": "ready"}
    assert painters([ready]) == {"status": "ok", "renderers": [ready]}
    gone = {"renderer": 2, "state": "restarting"}
    assert painters([ready, gone]) == {
        "status": "degraded",
        "message": "Of 2 renderer processes, 1 do not paint (number 2); `state` says why.",
        "renderers": [ready, gone],
    }


def test_metrics_have_one_sample_per_process() -> None:
    labelled = Labelled()
    ready = {"renderer": 1, "state": "ready", "restarts": 1, "workers": 2, "painted": 30, "batches": 10, "frames_per_second": 450.0}
    labelled.add("router", renderer_metrics([ready, {"renderer": 2, "state": "restarting", "restarts": 3}]))
    lines = [line for line in generate_latest(labelled).decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'gpuserver_renderer_ready{renderer="1",worker="router"} 1.0',
        'gpuserver_renderer_ready{renderer="2",worker="router"} 0.0',
        'gpuserver_renderer_restarts_total{renderer="1",worker="router"} 1.0',
        'gpuserver_renderer_restarts_total{renderer="2",worker="router"} 3.0',
        'gpuserver_renderer_workers{renderer="1",worker="router"} 2.0',
        'gpuserver_renderer_frames_per_second{renderer="1",worker="router"} 450.0',
        'gpuserver_renderer_painted_total{renderer="1",worker="router"} 30.0',
        'gpuserver_renderer_batches_total{renderer="1",worker="router"} 10.0',
    ]


def test_without_musetalk_there_are_none(make_settings: MakeSettings, tmp_path: Path) -> None:
    assert make_renderers(make_settings(media_workers=2), tmp_path).processes == ()
    assert list(renderer_metrics([])) == []


def test_every_gpu_has_a_process_and_every_worker_is_told_of_all(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Started] = []

    def start(*arguments: Any, **more: Any) -> FakeProcess:
        started.append(Started(*arguments, **more))
        return FakeProcess()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    monkeypatch.setattr(server, "Child", start)
    settings = make_settings(enable_musetalk=True, media_workers=2, internal_secret="s")
    with short_folder() as folder:
        renderers = make_renderers(settings, folder).processes
        paths = [each.path for each in renderers]
        make_fleet(settings, folder, paths)
        for each in renderers:
            each.listening.close()
    assert [each.gpu for each in renderers] == ["3", "GPU-abc"]
    assert [each.name for each in started] == ["renderer 1", "renderer 2", "media worker 1", "media worker 2"]
    gpus = [each.environment["CUDA_VISIBLE_DEVICES"] for each in started]
    assert gpus == ["3", "GPU-abc", "3,GPU-abc", "3,GPU-abc"]  # a worker prepares avatars
    for drawing in started[:2]:
        assert drawing.command[-3:] == ["renderer", "--listening", str(drawing.descriptors[0])]
    for showing in started[2:]:
        assert showing.command[-4:] == ["--renderer", str(paths[0]), "--renderer", str(paths[1])]


# The first one dies at once; the next one serves whoever has connected meanwhile.
CHILD = """
import pathlib, socket, sys
descriptor, been_here = int(sys.argv[1]), pathlib.Path(sys.argv[2])
if not been_here.exists():
    been_here.touch()
    sys.exit(3)
socket.socket(fileno=0).sendall(b"ready\\n")
connected, _ = socket.socket(fileno=descriptor).accept()
connected.sendall(b"hello")
connected.recv(1)
"""


async def test_a_process_that_dies_before_it_is_ready_is_started_again_and_finds_who_waits(tmp_path: Path) -> None:
    with short_folder() as folder:
        listening = listen(folder / "renderer-1.sock")
        descriptor = listening.fileno()
        command = [sys.executable, "-c", CHILD, str(descriptor), str(tmp_path / "been-here")]
        child = Child("renderer 1", command, package_environment(), descriptors=[descriptor])
        async with running(Renderers([RendererProcess(1, "", folder / "renderer-1.sock", listening, child)])), asyncio.timeout(30):
            reader, writer = await asyncio.open_unix_connection(str(folder / "renderer-1.sock"))
            assert await reader.readexactly(5) == b"hello"
            assert child.restarts == 1
            writer.close()
