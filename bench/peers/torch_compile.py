"""The step in PyTorch with torch.compile, in two forms. Shapes are static in both.

``Compiled`` compiles the parts of the eager step, as one would. ``CompiledWhole`` rewrites the step for the
compiler, with functional gradients (torch.func) and Adam by hand, so that everything is one graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value

from bench.cases import SEED, Case
from bench.peers.torch_eager import Eager
from fastgan.models import Discriminator, Generator, init_parameters

logging.getLogger("torch._logging").setLevel(logging.ERROR)  # it warns of profiler hooks that it leaves out

Tensors = dict[str, Tensor]


class Compiled(Eager):
    """The generator's pass, both losses with their backward, both optimizers."""

    mode = "default"

    def __init__(self, case: Case) -> None:
        super().__init__(case, foreach=True)  # the compiler fuses this form itself
        for adam in (self.g_adam, self.d_adam):  # in float32, 1 - beta^step would keep a few digits only
            for p in adam.param_groups[0]["params"]:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                adam.state[p] = {"step": torch.zeros((), dtype=torch.float64, device=p.device), **moments}
        for name in ("generate", "d_loss", "g_loss"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=False, mode=self.mode))
        self.d_update = torch.compile(self.d_adam.step, dynamic=False, mode=self.mode)
        self.g_update = torch.compile(self.g_adam.step, dynamic=False, mode=self.mode)


class CompiledMaxAutotune(Compiled):
    """The same parts; products may be Inductor's own kernels, timed against the library's while compiling."""

    # CUDA graphs, which "max-autotune" would add, own the memory of their results, but these parts hand
    # theirs to each other and to autograd; `torch eager in a CUDA graph` shows what a graph gives.
    mode = "max-autotune-no-cudagraphs"


class _Network:
    """Parameters and Adam's moments, plain tensors that are updated in place."""

    def __init__(self, module: torch.nn.Module, lr: float, case: Case) -> None:
        self.module, self.lr, self.case = module.requires_grad_(False), lr, case
        self.p: Tensors = dict(module.named_parameters())
        self.m, self.v = ({k: torch.zeros_like(p) for k, p in self.p.items()} for _ in range(2))

    def __call__(self, p: Tensors, x: Tensor) -> Tensor:
        return functional_call(self.module, p, (x,))

    def adam(self, loss: Callable[[Tensors], Tensor], t: Tensor) -> Tensor:
        """Take a step (Kingma & Ba 2015, algorithm 1, ordered as torch.optim.Adam); return the loss."""
        c = self.case.config
        gradients, value = grad_and_value(loss)(self.p)
        rate, root = self.lr / (1.0 - c.beta1**t), torch.sqrt(1.0 - c.beta2**t)
        for k, g in gradients.items():
            m, v = self.m[k], self.v[k]
            m.lerp_(g, 1.0 - c.beta1)
            v.mul_(c.beta2).addcmul_(g, g, value=1.0 - c.beta2)
            self.p[k].sub_(rate * m / (v.sqrt() / root + c.eps))
        return value


class CompiledWhole(Eager):
    """One graph for the whole step, gradients and updates included."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.initial = init_parameters(case.spec, SEED)
        c = case.config
        self.networks = {
            "generator": _Network(Generator(case.spec).to(case.device), c.g_lr, case),
            "discriminator": _Network(Discriminator(case.spec).to(case.device), c.d_lr, case),
        }
        self.t = torch.zeros(
            (), dtype=torch.float64, device=case.device
        )  # steps; 1 - beta^t needs the digits
        self.step = torch.no_grad()(torch.compile(self._step, dynamic=False, fullgraph=True))

    def reset(self) -> None:
        self.t.zero_()
        for name, network in self.networks.items():
            for k, p in network.p.items():
                p.copy_(self.initial[f"{name}.{k}"])
                network.m[k].zero_()
                network.v[k].zero_()

    def counted(self) -> float:
        return float(self.t)

    def parameters(self) -> dict[str, np.ndarray]:
        return {
            f"{n}.{k}": p.cpu().numpy() for n, network in self.networks.items() for k, p in network.p.items()
        }

    def _step(self, x: Tensor, d_noise: Tensor, g_noise: Tensor) -> tuple[Tensor, Tensor]:
        g, d = self.networks["generator"], self.networks["discriminator"]
        bce = F.binary_cross_entropy_with_logits
        self.t += 1.0
        rows = torch.cat([x, g(g.p, d_noise)])
        d_loss = d.adam(lambda p: 2.0 * bce(d(p, rows), self.targets), self.t)
        g_loss = g.adam(lambda p: bce(d(d.p, g(p, g_noise)), self.real), self.t)
        return d_loss, g_loss
