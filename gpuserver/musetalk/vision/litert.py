"""Runs a .tflite network on the CPU (LiteRT with XNNPACK)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpuserver.domain import Floats


class Network:
    """A .tflite file, ready to run. One instance per thread."""

    def __init__(self, path: Path, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

        self._interpreter: Any = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, values: Floats) -> list[Floats]:
        """All outputs for one input."""
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
