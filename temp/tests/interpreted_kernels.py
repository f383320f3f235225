"""Runs our Triton kernels in Triton's interpreter: TRITON_INTERPRET=1 python interpreted_kernels.py ANSWERS.npz"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Answers = dict[str, NDArray[Any]]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return numbers(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Norm:
    """A group norm of random pixels around `mean`; rising: that also grow by 50 from left to right."""

    shape: tuple[int, int, int, int]
    mean: float = 0
    rising: bool = False
    biased: bool = True
    activate: bool = True
    half: bool = False

    @property
    def pixels(self) -> Tensor:
        raised = pixels(*self.shape) + self.mean + (torch.linspace(0, 50, self.shape[3]) if self.rising else 0)
        return raised.half() if self.half else raised

    @property
    def bias(self) -> Tensor | None:
        return numbers(self.shape[1], seed=3) if self.biased else None

    @torch.no_grad()
    def norm(self) -> nn.GroupNorm:
        norm = nn.GroupNorm(32, self.shape[1])
        norm.weight.copy_(numbers(self.shape[1], seed=1))
        norm.bias.copy_(numbers(self.shape[1], seed=2))
        return (norm.half() if self.half else norm).requires_grad_(requires_grad=False)

    def exact(self, activation: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        added = self.pixels.double() + (0 if self.bias is None else self.bias[:, None, None])
        return activation(deepcopy(self.norm()).double()(added)).numpy()


SHAPES = [(2, 64, 8, 8), (1, 320, 8, 8), (2, 32, 16, 16), (1, 128, 32, 32), (1, 960, 8, 8)]
NORMS = [
    Norm(SHAPES[0]),
    *(Norm(shape, mean=100) for shape in SHAPES),
    Norm((2, 64, 8, 8), biased=False, activate=False),
    Norm((1, 32, 64, 64), rising=True),
    Norm((1, 64, 8, 8), biased=False, activate=False, half=True),
]
SUM = (pixels(2, 96, 8, 8), pixels(2, 96, 8, 8, seed=1), numbers(96))


def answers() -> Answers:
    from gpuserver.musetalk.neural.triton_operations import TritonOperations

    operations, found, layouts = TritonOperations(), {}, []
    for case in NORMS:
        normal = operations.norm(case.norm(), case.pixels, case.bias, activate=case.activate)
        layouts.append(normal.is_contiguous(memory_format=torch.channels_last))
        found[str(case)] = normal.numpy()
    one = SUM[0].clone(memory_format=torch.preserve_format)
    added = operations.add(one, *SUM[1:])
    layouts.append(added.is_contiguous(memory_format=torch.channels_last))
    case, broken = Norm((1, 32, 8, 8)), pixels(1, 32, 8, 8)
    broken[0, 0, 0, 0] = torch.nan
    return {
        **found,
        "sum": added.numpy(),
        "sum is in place": np.array(added.data_ptr() == one.data_ptr()),
        "not a number": operations.norm(case.norm(), broken, None, activate=True).numpy(),
        "layouts": np.array(layouts),
        "refusals": np.array([refusal(operations, shape) for shape in ((1, 48, 8, 8), (1, 32, 5, 8))]),
    }


def refusal(operations: Any, shape: tuple[int, ...]) -> str:
    try:
        operations.add(pixels(*shape), pixels(*shape), numbers(shape[1]))
    except ValueError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez(sys.argv[1], **answers())  # type: ignore[arg-type]
