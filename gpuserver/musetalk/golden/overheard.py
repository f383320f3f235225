"""What goes into a network and what comes out, while something else uses it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Overheard:
    """Notes every call of a module while the context lasts. inputs: the first argument of each call; outputs: its result."""

    def __init__(self, module: nn.Module):
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._module = module
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> Overheard:
        self._handle = self._module.register_forward_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _note(self, _module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        self.inputs.append(arguments[0])
        self.outputs.append(output)
