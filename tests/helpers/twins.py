"""Two models with the same parameters, held against each other."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from helpers.compare import assert_close


def results(model: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Return output and gradients by name, from the same random state each time."""
    model.zero_grad()
    torch.manual_seed(5)
    random.seed(5)
    inputs = tuple(i.detach().clone().requires_grad_(i.is_floating_point()) for i in inputs)
    out = model(*inputs)
    (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    grads = {f"input {i}": x.grad for i, x in enumerate(inputs) if x.grad is not None}
    grads |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"output": out.detach(), **grads}


def assert_twins(one: nn.Module, other: nn.Module, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    """Fail unless two models agree on outputs and gradients, in training and in evaluation."""
    for training in (True, False):
        a, b = (results(m.train(training), *inputs) for m in (one, other))
        assert_close(a, b, tolerance)
