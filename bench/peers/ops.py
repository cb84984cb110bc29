"""fastgan's fused ops, and the plain PyTorch that they replace. A unit is a call, with its backward if so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import parity
from bench.peers import ops_exact
from bench.plan import Problem, Work
from bench.protocol import Error
from fastgan import ops

SEED = 0
SLOPE = 0.2
_RECORDED = 2  # calls of a run that is looked at


@dataclass(frozen=True)
class _Op(Problem):
    """An op on ``batch`` rows, with or without its backward pass, or with the graph for one."""

    batch: int = 128
    dtype: str = "float32"
    backward: bool = False
    graph: bool = False

    @property
    def item(self) -> int:
        """Bytes of a value."""
        return getattr(torch, self.dtype).itemsize


@dataclass(frozen=True)
class Dense(_Op):
    """``leaky_relu(x W^T + b)``, x ``[batch, inputs]``; the backward pass gives all three gradients."""

    inputs: int = 128
    outputs: int = 128

    @property
    def work(self) -> Work:
        """Of a call. Backward reads x, W, y's signs and y's gradient, and writes three gradients."""
        x, w, y = self.batch * self.inputs, self.inputs * self.outputs, self.batch * self.outputs
        values = (x + w + self.outputs) + y
        if self.backward:
            values += (x + w + 2 * y) + (x + w + self.outputs)
        flops = 2.0 * x * self.outputs * (3 if self.backward else 1)
        return Work(flops, self.item * values, "call", dtype=self.dtype)


@dataclass(frozen=True)
class Bce(_Op):
    """The mean BCE of ``batch`` logits against 1: the number, or a tensor of it that was there before."""

    tensor: bool = False

    @property
    def work(self) -> Work:
        """Of a call. Backward reads logits and targets again and writes the logits' gradient."""
        read = 2 if self.tensor else 1
        return Work(0.0, self.item * self.batch * (2 * read + 1 if self.backward else read), "call")


@lru_cache(maxsize=1)
def _tensors(case: Dense | Bce) -> tuple[list[Tensor], tuple[Any, ...], Tensor | None]:
    """Return the tensors that may want a gradient, all arguments, and the gradient of the result.

    Peers of a problem that are built one after the other have the same ones: by where tensors lie alone, the
    same operators took up to 7% longer.
    """
    random = torch.Generator().manual_seed(SEED)

    def values(*shape: int) -> Tensor:
        tensor = torch.randn(*shape, generator=random).to(case.device, getattr(torch, case.dtype))
        return tensor.requires_grad_(case.backward or case.graph)

    if isinstance(case, Dense):
        shapes = ((case.batch, case.inputs), (case.outputs, case.inputs), (case.outputs,))
        tensors = [values(*shape) for shape in shapes]
        return tensors, (*tensors, SLOPE), values(case.batch, case.outputs).detach()
    logits = values(case.batch)
    target = torch.ones_like(logits, requires_grad=False) if case.tensor else 1.0
    return [logits], (logits, target), None


class _Calls:
    """Calls of one function on fixed tensors."""

    dense: Callable[..., Tensor]
    bce: Callable[..., Tensor]

    def __init__(self, case: Dense | Bce) -> None:
        self.case, self.device, self.backward = case, case.device, case.backward
        self.call = self.dense if isinstance(case, Dense) else self.bce
        self.tensors, self.arguments, self.gradient = _tensors(case)

    def reset(self) -> None:
        """Nothing is kept between two calls."""

    def run(self, units: int) -> int:
        if self.backward:
            for _ in range(units):
                for tensor in self.tensors:
                    tensor.grad = None
                self.call(*self.arguments).backward(self.gradient)
        else:
            for _ in range(units):
                self.call(*self.arguments)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return units

    def results(self) -> list[Tensor]:
        """Return what a call that :meth:`run` makes gives, its gradients included.

        Raises:
            ParityError: it makes other than as many calls as it says, or no gradients.
        """
        call, values = self.call, []

        def recorded(*arguments: Any) -> Tensor:
            values.append(call(*arguments))
            return values[-1]

        for tensor in self.tensors:
            tensor.grad = None
        self.call = recorded
        try:
            said = self.run(_RECORDED)
        finally:
            self.call = call
        gradients = [tensor.grad for tensor in self.tensors if self.backward]
        parity.check_count(type(self).__name__, said, len(values))
        if any(gradient is None for gradient in gradients):
            raise parity.ParityError(f"{type(self).__name__} gives no gradients")
        return [values[-1].detach(), *gradients]


class Auto(_Calls):
    """fastgan, choosing by itself."""

    dense = staticmethod(ops.linear_leaky_relu)
    bce = staticmethod(ops.bce_with_logits)

    def errors(self) -> dict[str, Error]:
        """Return how far each result is from float64's, beside those of plain PyTorch on the same tensors."""
        off, usual = (self._off(peer.results()) for peer in (self, Plain(self.case)))
        eps = torch.finfo(self.tensors[0].dtype).eps
        return {name: Error(off[name], usual[name], eps) for name in usual}

    def _off(self, results: list[Tensor]) -> dict[str, float]:
        if isinstance(self.case, Dense):
            return ops_exact.dense(results, *self.arguments, self.gradient)
        return ops_exact.bce(results, *self.arguments)


class Plain(_Calls):
    """What one would write without it."""

    @staticmethod
    def dense(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
        return F.leaky_relu(F.linear(x, weight, bias), slope)

    @staticmethod
    def bce(logits: Tensor, target: Tensor | float) -> Tensor:
        if not isinstance(target, Tensor):
            target = torch.full_like(logits, target)
        return F.binary_cross_entropy_with_logits(logits, target)
