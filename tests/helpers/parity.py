"""The parity contract with a closer look: every tensor by itself, moments included, from any state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from statistics import median

import pytest
import torch
from fastgan.kernels import cpu

from fastgan import parity
from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.engines.reference import ReferenceEngine
from fastgan.errors import UserError
from fastgan.state import State

try:
    ISAS = cpu.native().isas()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

from fastgan.engines.cpu import CpuEngine

DRAWS = 2
# The engine adds the rows of penalties to the same sum as all others, one by one; PyTorch makes three sums of
# them and splits each. Where penalties are much the same for all rows, that shows (measured: up to 2.8).
LOOSE = 4.0


class RoundedReference(ReferenceEngine):
    """The reference in float64, but for errors the size of float32 roundings: in the outputs of layers and
    the gradients of these, in the parameters, and in their gradients: the error of a plain float32 sum in the
    order of the rows.

    PyTorch's own float32 error is a single draw, and so no measure for a tensor of a few elements: it may be
    zero. This engine adds draws, and knows what roundings become: where terms cancel, where all rows are
    alike, and where Adam makes a step of a gradient that is no larger than they are.
    """

    def __init__(self, config: Config, data: Data, draw: int) -> None:
        super().__init__(config, data, torch.float64)
        self.random = torch.Generator().manual_seed(draw)
        self.errors: dict[torch.Tensor, torch.Tensor] = {}
        for network in (self.generator, self.discriminator):
            for layer in network.layers:
                layer.register_forward_hook(self._round_output)

    def _roundings(self, values: torch.Tensor) -> torch.Tensor:
        return (
            2.0**-24 * values.detach() * torch.randn(values.shape, generator=self.random, dtype=torch.float64)
        )

    def _round_output(self, layer, inputs, output):
        rows = inputs[0].detach()

        def round_gradient(gradient):
            terms = gradient.detach()
            for p, of_rows in ((layer.weight, terms[:, :, None] * rows[:, None, :]), (layer.bias, terms)):
                in_order = torch.from_numpy(of_rows.float().numpy().cumsum(0)[-1])
                self.errors[p] = self.errors.get(p, 0.0) + (in_order - of_rows.sum(0))
            return gradient + self._roundings(gradient)

        output = output + self._roundings(output)
        if output.requires_grad:
            output.register_hook(round_gradient)
        return output

    def _update(self, name, loss):
        self.errors.clear()
        parameters = list(self._networks[name].parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient + self.errors[p]
        self._adam[name].step()
        with torch.no_grad():
            for p in parameters:
                p.copy_(p.float())


def native(config: Config, data: Data, threads: int = 2) -> CpuEngine:
    return CpuEngine(dataclasses.replace(config, threads=threads), data)


def native_at(config: Config, data: Data, state: State, threads: int = 2) -> CpuEngine:
    engine = native(config, data, threads)
    engine.load(state)
    return engine


def breaches(
    config: Config, data: Data, states: Sequence[State], engine: Callable = native, contract: bool = True
) -> list[str]:
    """Return a line for everything in which an engine strays too far from the truth.

    With ``contract``, that is what breaks the contract of :mod:`fastgan.parity`, by PyTorch's difference
    alone. In any case, every tensor of the state, moments too, is held by itself against the larger one of
    PyTorch's difference and that of :class:`RoundedReference` (``LOOSE`` times that without ``contract``);
    metrics count as in the contract. All this by the median over ``states``.
    """
    found = parity.traces(config, data, engine, states)
    rows = parity.judge(config, found)
    lines = [f"after {r.steps}: {r}" for r in rows if r.wrong or (contract and not r.ok)]
    rounded = [
        [parity.trace(RoundedReference(config, data, draw), s) for draw in range(DRAWS)] for s in states
    ]
    for i, steps in enumerate(parity.STEPS):
        for name in found[0].truth.states[i].tensors:
            distances = []
            for t, draws in zip(found, rounded, strict=True):
                d = parity.distance(
                    *({name: x.states[i].tensors[name]} for x in (t.truth, t.pytorch, t.engine))
                )
                truth = {name: t.truth.states[i].tensors[name]}
                others = (parity.largest_difference(r.states[i].tensors, truth) for r in draws)
                distances.append(dataclasses.replace(d, pytorch=max(d.pytorch, *others)))
            if not median(d.share for d in distances) <= (1.0 if contract else LOOSE):
                lines.append(f"after {steps}: {name}: {distances}")
    return lines
