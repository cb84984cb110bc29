"""The forward of an ``nn.Sequential`` whose pairs of Linear and LeakyReLU or ReLU run as one op."""

from __future__ import annotations

from torch import Tensor, nn

from fastgan.fusion.call import call


def forward(self: nn.Sequential, input: Tensor) -> Tensor:
    """Return what ``nn.Sequential.forward`` returns."""
    modules = list(self._modules.values())
    i = 0
    while i < len(modules):
        if is_pair(modules, i):
            input = call(i, modules[i + 1], modules[i], input)
            i += 2
        else:
            input = modules[i](input)
            i += 1
    return input


def is_pair(modules: list[nn.Module], i: int) -> bool:
    """Whether modules ``i`` and ``i + 1`` may run as one op, as far as their kinds tell.

    They may not where the next one works in place: the fused op keeps its result for the backward pass.
    """
    if type(modules[i]) is not nn.Linear or i + 1 == len(modules):
        return False
    if type(modules[i + 1]) not in (nn.LeakyReLU, nn.ReLU):
        return False
    return i + 2 == len(modules) or not getattr(modules[i + 2], "inplace", False)
