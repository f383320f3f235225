"""The GPU benchmark loses nothing: not to a section that hangs, not to a process that dies, not to the end of its time.

Its workers are a few lines of Python that print events and misbehave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.musetalk_report import Report
from bench.musetalk_supervisor import EVENT, Planned, Supervisor
from bench.table import Figure, plain

ROOT = Path(__file__).resolve().parents[2]

WORKER = f"""
import json, os, signal, sys, time
def tell(kind, value): print({EVENT!r} + json.dumps({{kind: value}}), flush=True)
def row(key, value=1.0): tell("row", dict(key=key, what=key, value=value, unit="", reach="", reached=True, how="made up"))
print("a warning of some library", flush=True)
tell("machine", "a fake GPU")
for section in sys.argv[1:]:
    if section == "--plain":
        tell("remark", "plain")
        continue
    tell("begin", section)
    row(section)
    if section == "hangs": time.sleep(1000)
    if section == "dies": os.kill(os.getpid(), signal.SIGKILL)
    if section == "fails": tell("fail", "ValueError: as planned")
    tell("end", section)
    if section == "costs the device": sys.exit(3)
"""


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "figures.json")


def run(report: Report, *plan: Planned, worker: str = WORKER, seconds: float = 1000, clock: Callable[[], float] = lambda: 0.0) -> Report:
    Supervisor([sys.executable, "-c", worker], report, seconds, clock).run(plan)
    return report


def keys(report: Report) -> list[str]:
    return [figure.key for figure in report.figures]


def test_every_section_gives_its_rows_in_one_process(report: Report, capfd: pytest.CaptureFixture[str]) -> None:
    run(report, Planned("first", 60), Planned("second", 60))
    assert keys(report) == ["first", "second"]
    assert (report.machine, report.errors, report.remarks) == ("a fake GPU", {}, [])
    assert "a warning of some library" in capfd.readouterr().out


def test_a_section_that_fails_keeps_the_rows_it_gave_and_the_others_go_on(report: Report) -> None:
    run(report, Planned("fails", 60), Planned("second", 60))
    assert keys(report) == ["fails", "second"]
    assert report.errors == {"fails": "ValueError: as planned"}
    assert report.remarks == []


def test_a_section_that_hangs_is_given_up_and_a_new_process_goes_on(report: Report) -> None:
    run(report, Planned("first", 60), Planned("hangs", 0.5), Planned("third", 60))
    assert keys(report) == ["first", "hangs", "third"]
    assert list(report.errors) == ["hangs"]
    assert report.remarks[0] == "After 'hangs' a new process went on, without kernels of our own."
    assert report.remarks[1] == "plain"


def test_a_process_that_dies_costs_the_section_in_work_alone(report: Report) -> None:
    run(report, Planned("dies", 60), Planned("second", 60))
    assert keys(report) == ["dies", "second"]
    assert report.errors == {"dies": "its process ended (killed by SIGKILL)"}


def test_a_process_that_ends_between_two_sections_costs_none(report: Report) -> None:
    run(report, Planned("costs the device", 60), Planned("second", 60))
    assert keys(report) == ["costs the device", "second"]
    assert report.errors == {}


def test_a_section_that_is_to_be_alone_has_a_process_of_its_own(report: Report) -> None:
    run(report, Planned("first", 60), Planned("dies", 60, alone=True), Planned("third", 60))
    assert keys(report) == ["first", "third", "dies"]


def test_where_no_process_starts_all_sections_say_so_at_once(report: Report) -> None:
    run(report, Planned("first", 60), Planned("second", 60), worker="import sys; sys.exit(1)")
    assert report.errors == dict.fromkeys(("first", "second"), "no process could be started (exit code 1)")


def test_what_there_is_no_time_for_is_left_out_and_named(report: Report) -> None:
    times = iter([0.0])
    run(report, Planned("first", 60), Planned("alone", 60, alone=True), seconds=10, clock=lambda: next(times, 11.0))
    assert report.errors["alone"] == "left out: no time was left"


def test_the_file_holds_every_row_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    report = Report(out)
    report.add(speed("fps_batch_8", 400))
    assert json.loads(out.read_text())["figures"] == {"best_fps": 400, "fps_batch_8": 400}
    report.fail("second", "why")
    assert json.loads(out.read_text())["errors"] == {"second": "why"}
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_a_later_row_takes_the_place_of_an_earlier_one_with_its_key() -> None:
    report = Report()
    report.add(plain("sessions", "sessions", 16, "", "made up"))
    report.add(plain("sessions", "sessions", 20, "", "made up"))
    assert [figure.value for figure in report.figures] == [20]


def speed(key: str, value: float) -> Figure:
    return plain(key, f"speed, batch {key.rsplit('_', 1)[1]}", value, "frames/s", "made up")


def test_the_best_configuration_is_the_fastest_with_8_to_16_faces() -> None:
    report = Report()
    for key, value in (("fps_batch_4", 700), ("fps_batch_8", 440), ("fps_compiled_16", 460), ("fps_other_32", 800)):
        report.add(speed(key, value))
    best = report.best()
    assert best is not None
    assert (best.value, best.reached) == (460, True)
    assert best.how == "best configuration: batch 16; made up"


WAITING = """
import os, time
print(os.getpid(), flush=True)
time.sleep(1000)
"""

BENCHMARK = f"""
import sys
import bench.musetalk_gpu as benchmark
benchmark.worker_command = lambda arguments: [sys.executable, "-c", {WAITING!r}]
sys.argv = ["bench/musetalk_gpu.py"]
sys.exit(benchmark.main())
"""


def test_a_benchmark_that_is_told_to_end_ends_its_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", BENCHMARK], cwd=ROOT, stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        worker = int(benchmark.stdout.readline())
        benchmark.terminate()
        assert benchmark.wait(timeout=60) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
