"""What the MuseTalk benchmark knows so far; its JSON file is there however the process ends."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.table import Figure, as_markdown, at_least

BEST = "best_fps"
REACH_FPS = 450.0
_SPEED = "fps_"  # rows that compete for the best; their keys end with the batch
_BATCHES = range(8, 17)


class Report:
    """path: of the JSON file, written anew whenever something is added:

    {"machine": …, "errors": {section: why}, "remarks": […], "figures": {key: value}, "rows": [every field of every figure]}
    """

    def __init__(self, path: Path | None = None):
        self.machine = ""
        self.errors: dict[str, str] = {}
        self.remarks: list[str] = []
        self._figures: dict[str, Figure] = {}
        self._path = path

    @property
    def figures(self) -> list[Figure]:
        """The best configuration first."""
        best = self.best()
        return [*([best] if best else []), *self._figures.values()]

    def add(self, figure: Figure) -> None:
        """In the place of an earlier one with its key, if there is one."""
        self._figures[figure.key] = figure
        self.write()

    def fail(self, section: str, why: str) -> None:
        self.errors[section] = why
        self.write()

    def remark(self, text: str) -> None:
        self.remarks.append(text)
        self.write()

    def best(self) -> Figure | None:
        """The highest speed with 8 to 16 faces at a time, and how it is reached."""
        speeds = [each for each in self._figures.values() if each.key.startswith(_SPEED) and int(each.key.rsplit("_", 1)[1]) in _BATCHES]
        if not speeds:
            return None
        best = max(speeds, key=lambda figure: figure.value)
        how = f"best configuration: {best.what.removeprefix('speed, ')}; {best.how}"
        return at_least(BEST, "frames/s end to end, batch 8-16", best.value, REACH_FPS, "frames/s", how)

    def table(self) -> str:
        """Markdown, what was left out below it."""
        failed = [f"{section}: FAILED, {why}" for section, why in self.errors.items()]
        return "\n".join([self.machine, as_markdown(self.figures), *self.remarks, *failed])

    def write(self) -> None:
        """Whole or not at all: a reader never sees half of it."""
        if self._path is None:
            return
        figures = self.figures
        report = {
            "machine": self.machine,
            "errors": self.errors,
            "remarks": self.remarks,
            "figures": {figure.key: figure.value for figure in figures},
            "rows": [asdict(figure) for figure in figures],
        }
        draft = self._path.with_name(f"{self._path.name}.part")
        draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self._path)
