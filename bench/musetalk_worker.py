"""Measures some sections of the MuseTalk benchmark and prints what it finds as events; musetalk_gpu.py starts it."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package need not be installed

import torch  # noqa: E402

from bench.musetalk_rig import Rig, Size  # noqa: E402
from bench.musetalk_sections import Sections  # noqa: E402
from bench.musetalk_supervisor import EVENT  # noqa: E402
from bench.table import Figure  # noqa: E402

LOST = 3  # exit code: the GPU answers no more, and another process has to go on


def main() -> int:
    arguments = parsed_arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use. --device cpu --tiny tries the script.", file=sys.stderr)
        return 1
    tell("machine", f"{machine(arguments.device)}{', tiny networks' if arguments.tiny else ''}")
    size = Size.tiny() if arguments.tiny else Size.quick() if arguments.quick else Size.full()
    sections = Sections(Rig(arguments.device, size, tiny=arguments.tiny, tuned=not arguments.plain)).all()
    return LOST if any(not measured(name, sections[name]()) for name in arguments.sections) else 0


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    for flag in ("--quick", "--tiny", "--plain"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def measured(name: str, rows: Iterator[Figure | str]) -> bool:
    """Tell the rows as they come. False: no further section can be measured in this process."""
    tell("begin", name)
    try:
        for row in rows:
            tell("remark", row) if isinstance(row, str) else tell("row", asdict(row))
    except Exception as error:  # noqa: BLE001 - the other sections go on
        traceback.print_exc()
        tell("fail", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}")
    tell("end", name)
    return answers()


def answers() -> bool:
    """Whether the GPU still does: after some errors every call fails until the process ends."""
    try:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def tell(kind: str, value: object) -> None:
    print(EVENT + json.dumps({kind: value}), flush=True)


def machine(device: str) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}, {today}"


if __name__ == "__main__":
    sys.exit(main())
