"""Measures MuseTalk on one GPU with full-size networks and random weights: python bench/musetalk_gpu.py [--json FILE] [--quick]

Needs torch and numpy, nothing else, and less than 8 minutes. A section that fails loses its own rows only.
Without a GPU `--device cpu --tiny` tries the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package need not be installed

import torch  # noqa: E402

from bench.musetalk_rig import Rig, Size  # noqa: E402
from bench.musetalk_sections import Section, Sections, compiled, contiguous  # noqa: E402
from bench.table import Figure, as_markdown  # noqa: E402

LIMIT_SECONDS = 300.0  # no section is begun later
COMPILED_LIMIT_SECONDS = 140.0
LAST_SECONDS = 460.0  # whatever hangs then is given up


def main() -> int:
    """0 if every section gave its rows, whatever they say; 1 if one failed."""
    arguments = parsed_arguments()
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("There is no GPU that torch can use. --device cpu --tiny tries the script.", file=sys.stderr)
        return 1
    size = Size.tiny() if arguments.tiny else Size.quick() if arguments.quick else Size.full()
    rig = Rig(arguments.device, size, tiny=arguments.tiny)
    report = Report(machine(arguments.device), arguments.json)
    print(f"{report.machine}{', tiny networks' if arguments.tiny else ''}", flush=True)
    with given_up_after(LAST_SECONDS, report):
        for name, section in sections(rig, alone=arguments.compiled, on_gpu=on_gpu).items():
            report.run(name, section)
    print(as_markdown(report.figures))
    return 1 if report.errors else 0


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--tiny", action="store_true", help="small networks and hardly any measurement: tries the script")
    parser.add_argument("--compiled", action="store_true", help="only the compiled networks")
    return parser.parse_args()


def sections(rig: Rig, *, alone: bool, on_gpu: bool) -> dict[str, Section]:
    if alone:
        return {"compiled": lambda: compiled(rig)}
    variants: dict[str, Section] = {"channels first": lambda: contiguous(rig), "compiled": compiled_elsewhere}
    return Sections(rig).all() | (variants if on_gpu else {})


class Report:
    """What there is so far; the JSON file is written anew after every section, so that it is there however the process ends."""

    def __init__(self, machine: str, path: Path | None):
        self.machine = machine
        self.figures: list[Figure] = []
        self.errors: dict[str, str] = {}
        self._path = path

    def run(self, name: str, section: Section) -> None:
        """Rows are kept as they come: a section that fails in the middle has given some."""
        begun = time.monotonic()
        if begun - STARTED > LIMIT_SECONDS:
            self.errors[name] = f"left out: {LIMIT_SECONDS:.0f} s have passed"
        else:
            try:
                for figure in section():
                    self.figures.append(figure)
                    print(f"  {figure.what}: {figure.shown}", flush=True)
            except Exception as error:  # noqa: BLE001 - the other sections go on
                traceback.print_exc()
                self.errors[name] = f"{type(error).__name__}: {error}"
        outcome = f"FAILED, {self.errors[name]}" if name in self.errors else "done"
        print(f"{name}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
        self.write()

    def write(self) -> None:
        """{"machine": …, "errors": {section: why}, "figures": {key: value}, "rows": [every field of every figure]}"""
        if self._path is None:
            return
        report = {
            "machine": self.machine,
            "errors": self.errors,
            "figures": {figure.key: figure.value for figure in self.figures},
            "rows": [asdict(figure) for figure in self.figures],
        }
        self._path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def given_up_after(seconds: float, report: Report) -> Iterator[None]:
    """A call of the driver that never returns cannot be interrupted: the process says what it has and ends."""

    def give_up() -> None:
        report.errors["benchmark"] = f"given up: a section was not over after {seconds:.0f} s"
        report.write()
        print(as_markdown(report.figures))
        print(f"FAILED, {report.errors['benchmark']}", flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def compiled_elsewhere() -> Iterator[Figure]:
    """In a process of its own, because a compilation that takes too long can be ended no other way."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "compiled.json"
        command = [sys.executable, str(Path(__file__)), "--compiled", "--json", str(out)]
        subprocess.run(command, check=True, timeout=COMPILED_LIMIT_SECONDS, stdout=subprocess.DEVNULL)
        for row in json.loads(out.read_text(encoding="utf-8"))["rows"]:
            yield Figure(**row)


def machine(device: str) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}, {today}"


STARTED = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
