"""The forward of an ``nn.Sequential`` whose pairs of Linear and LeakyReLU or ReLU run as one op."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan.fusion.call import ACTIVATIONS, call

# The class's positions of Linears that run by themselves, if it has any.
ALONE = "_fastgan_alone"


def forward(self, input):
    """Return what ``nn.Sequential.forward`` returns."""
    if not torch.jit.is_scripting():  # torch.jit.script takes the rest, which is PyTorch's own
        return _run(list(self._modules.values()), input, getattr(type(self), ALONE, ()))
    for module in self:
        input = module(input)
    return input


def _run(modules: list[nn.Module], input: Tensor, alone: tuple[int, ...]) -> Tensor:
    i = 0
    while i < len(modules):
        if i not in alone and _is_pair(modules, i):
            input = call(i, modules[i + 1], modules[i], input)
            i += 2
        else:
            input = modules[i](input)
            i += 1
    return input


def _is_pair(modules: list[nn.Module], i: int) -> bool:
    """Whether modules ``i`` and ``i + 1`` may run as one op, as far as their kinds tell.

    Where the next one works in place they run by themselves: the fused op keeps its result for the backward
    pass, and would have to compute it again.
    """
    if type(modules[i]) is not nn.Linear or i + 1 == len(modules):
        return False
    if type(modules[i + 1]) not in ACTIVATIONS:
        return False
    return i + 2 == len(modules) or not vars(modules[i + 2]).get("inplace", False)
