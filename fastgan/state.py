"""The whole state of a training run: what engines load and export, and what a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.errors import UserError
from fastgan.models import init_parameters
from fastgan.spec import ModelSpec


@dataclass
class State:
    """Parameters, Adam moments and moving average by name, with the seed and the step.

    ``tensors`` holds, for every parameter ``p`` of ``generator.*`` and ``discriminator.*``: ``p``,
    ``exp_avg.p`` and ``exp_avg_sq.p`` (Adam's two moments); and for generator parameters ``ema.layers...``.
    The optimizers' step counts follow from ``step``, and all randomness from ``(seed, step)``.
    """

    tensors: dict[str, Tensor]
    seed: int
    step: int = 0

    @classmethod
    def initial(cls, spec: ModelSpec, seed: int) -> State:
        """Return the state before the first step: fresh parameters, zero moments, EMA = generator."""
        parameters = init_parameters(spec, seed)
        tensors = dict(parameters)
        for name, value in parameters.items():
            tensors["exp_avg." + name] = torch.zeros_like(value)
            tensors["exp_avg_sq." + name] = torch.zeros_like(value)
            if name.startswith("generator."):
                tensors["ema." + name.removeprefix("generator.")] = value.clone()
        return cls(tensors, seed)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under ``prefix.`` without the prefix: ``part("ema")`` loads into a Generator."""
        prefix += "."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def check(self, spec: ModelSpec, source: str = "state") -> None:
        """Refuse a state that does not fit ``spec``: missing, surplus or misshapen tensors, by name."""
        wanted = {k: tuple(v.shape) for k, v in _empty(spec).items()}
        for name in sorted(wanted.keys() ^ self.tensors.keys()):
            here = "a tensor that the model does not have" if name in self.tensors else "no such tensor"
            raise UserError(f"{source}: {name}", here, "the tensors of the model that the options describe")
        for name, shape in wanted.items():
            if tuple(self.tensors[name].shape) != shape:
                raise UserError(
                    f"{source}: {name}", f"shape {tuple(self.tensors[name].shape)}", f"shape {shape}"
                )


def _empty(spec: ModelSpec) -> dict[str, Tensor]:
    out = {}
    for name, shape in spec.parameter_shapes():
        for key in (name, "exp_avg." + name, "exp_avg_sq." + name):
            out[key] = torch.empty(shape, device="meta")
        if name.startswith("generator."):
            out["ema." + name.removeprefix("generator.")] = torch.empty(shape, device="meta")
    return out
