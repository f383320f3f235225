"""Measures MuseTalk on one GPU with full-size networks and random weights: python bench/musetalk_gpu.py [--json FILE] [--quick]

Needs torch and numpy, nothing else, and less than 8 minutes. A section that fails, hangs or takes the GPU's context with it loses
its own remaining rows only; the JSON file is written anew after every row. Without a GPU `--device cpu --tiny` tries the script itself.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package need not be installed

from bench.musetalk_report import Report  # noqa: E402
from bench.musetalk_supervisor import Planned, Supervisor  # noqa: E402

LAST_SECONDS = 465.0  # whatever runs then is ended

# The most important ones first: those that time does not suffice for are left out.
PLAN = (
    Planned("warm-up", 150),
    Planned("memory", 60),
    Planned("speed", 150),
    Planned("upstream", 60),
    Planned("first face", 60),
    Planned("sessions", 100),
    Planned("stages", 40),
    Planned("other batches", 90),
    Planned("channels first", 60),
    Planned("compiled", 170, alone=True),  # on a GPU only
)


def main() -> int:
    """0 if every section gave its rows, whatever they say; 1 if one failed or was left out."""
    arguments = parsed_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worker is ended, too
    plan = [planned for planned in PLAN if arguments.device == "cuda" or not planned.alone]
    report = Report(arguments.json)
    Supervisor(worker_command(arguments), report, STARTED + LAST_SECONDS).run(plan)
    print(report.table())
    return 1 if report.errors else 0


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--tiny", action="store_true", help="small networks and hardly any measurement: tries the script")
    parser.add_argument("--plain", action="store_true", help="the networks as they are, without kernels of our own")
    return parser.parse_args()


def worker_command(arguments: argparse.Namespace) -> list[str]:
    flags = [f"--{name}" for name in ("quick", "tiny", "plain") if getattr(arguments, name)]
    return [sys.executable, str(ROOT / "bench" / "musetalk_worker.py"), "--device", arguments.device, *flags]


if __name__ == "__main__":
    sys.exit(main())
