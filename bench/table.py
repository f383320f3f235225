"""A table of figures: what was measured, what is to be reached, and as JSON for other programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. key: its name in the JSON; how: what exactly was measured, over how many repeats."""

    key: str
    what: str
    value: float
    unit: str
    reach: str
    reached: bool
    how: str

    @property
    def shown(self) -> str:
        size = abs(self.value)
        digits = 0 if size >= 100 else 1 if size >= 2 else 2 if size >= 0.1 else 3
        return f"{self.value:.{digits}f} {self.unit}".strip() if self.value else f"0 {self.unit}".strip()


def at_most(key: str, what: str, value: float, limit: float, unit: str, how: str) -> Figure:
    return Figure(key, what, value, unit, f"<= {limit:g} {unit}".strip(), value <= limit, how)


def at_least(key: str, what: str, value: float, limit: float, unit: str, how: str) -> Figure:
    return Figure(key, what, value, unit, f">= {limit:g} {unit}".strip(), value >= limit, how)


def plain(key: str, what: str, value: float, unit: str, how: str) -> Figure:
    """A row for which nothing is to be reached."""
    return Figure(key, what, value, unit, "–", reached=True, how=how)


def as_markdown(figures: Sequence[Figure]) -> str:
    rows = ["| what | measured | reach | how |", "|---|---|---|---|"]
    rows += [f"| {f.what} | {f.shown}{'' if f.reached else ' (missed)'} | {f.reach} | {f.how} |" for f in figures]
    return "\n".join(rows)


def machine() -> str:
    """What the figures were measured on."""
    cores = len([line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")])
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "CPU")
    return f"{cores} cores of {model}, no GPU, Python {platform.python_version()}"


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """{"machine": …, "figures": {key: value}, "rows": [every field of every figure]}"""
    report = {"machine": machine(), "figures": {f.key: f.value for f in figures}, "rows": [asdict(f) for f in figures]}
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
