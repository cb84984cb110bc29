"""The step in PyTorch, eager, with Adam(fused=True) or the default Adam; on a GPU if the case says so.

The better form of what tutorials show: the generator's step asks for the generator's gradients only, where a
plain ``loss.backward()`` would also compute the discriminator's and throw them away.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases import SEED, Case
from bench.protocol import Recorded, Replayed
from fastgan.models import Discriminator, Generator
from fastgan.state import State


class Eager:
    """PyTorch as it comes. Subclasses say what of it is compiled."""

    def __init__(self, case: Case, **adam_options: bool) -> None:
        self.case, self.device = case, case.device
        self.x = torch.from_numpy(case.floats).to(self.device)
        self.state = State.initial(case.spec, SEED)
        self.g, self.d = (network(case.spec).to(self.device) for network in (Generator, Discriminator))
        self.real = torch.ones(case.batch, device=self.device)
        self.generated = torch.zeros_like(self.real)
        self.targets = torch.cat([self.real, self.generated])
        c, options = case.config, adam_options or {"fused": True}
        self.g_adam, self.d_adam = (
            torch.optim.Adam(network.parameters(), lr, (c.beta1, c.beta2), c.eps, **options)
            for network, lr in ((self.g, c.g_lr), (self.d, c.d_lr))
        )

    def reset(self) -> None:
        for network, name in ((self.g, "generator"), (self.d, "discriminator")):
            network.load_state_dict(self.state.part(name))
        for adam in (self.g_adam, self.d_adam):
            for moments in adam.state.values():
                for value in moments.values():
                    value.zero_()

    def run(self, units: int) -> int:
        for _ in range(units):
            self.step(*self.draw())
        self.finish()
        return units

    def counted(self) -> float:
        """Return the steps that both optimizers have taken of every parameter."""
        pairs = [(adam, p) for adam in (self.g_adam, self.d_adam) for p in adam.param_groups[0]["params"]]
        return min(float(adam.state.get(p, {}).get("step", 0.0)) for adam, p in pairs)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch and both steps' noise."""
        case, device = self.case, self.device
        x = self.x[torch.randint(case.rows, (case.batch,), device=device)]
        d_noise, g_noise = (torch.randn(case.batch, case.latent, device=device) for _ in range(2))
        return x, d_noise, g_noise

    def finish(self) -> None:
        """Wait for the GPU."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def replay(self, steps: list[Recorded]) -> Replayed:
        self.reset()
        losses = [
            [loss.item() for loss in self.step(*(self.put(a) for a in (s.x, s.d_noise, s.g_noise)))]
            for s in steps
        ]
        return Replayed(np.array(losses), self.parameters())

    def put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by the names of a state."""
        networks: dict[str, nn.Module] = {"generator": self.g, "discriminator": self.d}
        named = ((n, k, p) for n, network in networks.items() for k, p in network.named_parameters())
        return {f"{n}.{k}": p.detach().cpu().numpy() for n, k, p in named}

    def step(self, x: Tensor, d_noise: Tensor, g_noise: Tensor) -> tuple[Tensor, Tensor]:
        """One article step: the discriminator's, then the generator's; losses in that order."""
        with torch.no_grad():
            fake = self.generate(d_noise)
        d_loss = self.d_loss(x, fake)
        self.d_adam.zero_grad()
        d_loss.backward()
        self.d_update()
        self.d.requires_grad_(False)
        g_loss = self.g_loss(g_noise)
        self.g_adam.zero_grad()
        g_loss.backward()
        self.g_update()
        self.d.requires_grad_(True)
        return d_loss.detach(), g_loss.detach()

    def generate(self, z: Tensor) -> Tensor:
        return self.g(z)

    def d_loss(self, x: Tensor, fake: Tensor) -> Tensor:
        return 2.0 * F.binary_cross_entropy_with_logits(self.d(torch.cat([x, fake])), self.targets)

    def g_loss(self, z: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.d(self.g(z)), self.real)

    def d_update(self) -> None:
        self.d_adam.step()

    def g_update(self) -> None:
        self.g_adam.step()


class EagerDefault(Eager):
    """The Adam that one gets without asking: a kernel per operation and tensor, or per operation on GPUs."""

    def __init__(self, case: Case) -> None:
        super().__init__(case, fused=None)
