"""Workers are started together and stopped together; GPUs are dealt out."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from fake_workers import SECRET, FakeProcess
from structlog.testing import capture_logs

from gpuserver.errors import CannotStart, SessionNotFound, Unavailable
from gpuserver.media_router import fleet as fleet_module
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.gpus import environments, visible_gpus
from gpuserver.media_router.worker_client import WorkerClient
from gpuserver.session_names import new_session_id


def _fleet(folder: Path, *processes: FakeProcess) -> Fleet:
    return Fleet([Worker(number, each, WorkerClient(folder / str(number), SECRET)) for number, each in enumerate(processes, 1)])


async def test_it_begins_when_all_serve_and_ends_with_all(tmp_path: Path) -> None:
    processes = [FakeProcess(), FakeProcess()]
    life = _fleet(tmp_path, *processes).run(web.Application())
    await anext(life)
    assert all(process.serves for process in processes)
    await anext(life, None)
    assert not any(process.serves or process.killed for process in processes)


async def test_a_worker_that_cannot_start_ends_the_others_with_its_reason(tmp_path: Path) -> None:
    other = FakeProcess()
    with pytest.raises(CannotStart, match="no room"):
        await anext(_fleet(tmp_path, other, FakeProcess(failure=CannotStart("There is no room."))).run(web.Application()))
    assert not other.serves


async def test_what_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "STOP_SECONDS", 0.01)
    stubborn = FakeProcess(stubborn=True)
    fleet = _fleet(tmp_path, FakeProcess(), stubborn)
    life = fleet.run(web.Application())
    await anext(life)
    with capture_logs() as logs:
        await fleet.stop()
    assert stubborn.killed
    assert [line["processes"] for line in logs] == [["worker 2"]]
    await anext(life, None)


async def test_each_worker_that_serves_has_its_turn(tmp_path: Path) -> None:
    processes = [FakeProcess() for _ in range(3)]
    fleet = _fleet(tmp_path, *processes)
    life = fleet.run(web.Application())
    await anext(life)
    assert sorted(fleet.any().number for _ in range(3)) == [1, 2, 3]
    processes[0].serves = False
    assert {fleet.any().number for _ in range(4)} == {2, 3}
    with pytest.raises(SessionNotFound):
        fleet.of_session(new_session_id(1))
    for process in processes:
        process.serves = False
    with pytest.raises(Unavailable):
        fleet.any()
    await anext(life, None)


def test_every_gpu_has_a_renderer_and_without_any_one_process_says_so() -> None:
    assert environments(["0", "GPU-abc"]) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "GPU-abc"}]
    assert environments([]) == [{}]


def test_visible_gpus_are_those_of_the_environment_or_of_the_machine(tmp_path: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-abc"}) == ["3", "GPU-abc"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
