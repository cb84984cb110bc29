"""A WGAN with gradient penalty (Gulrajani et al. 2017) by hand and captured."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from fastgan.graphs import AlternatingSteps, capture_alternating
from fastgan.graphs.capture import Captures

LATENT, FEATURES = 3, 5


class Wgan:
    """Two networks, their optimizers, the two losses, and a moving average of the generator."""

    def __init__(self, device: str = "cpu", *, slope: float = 0.2, **adam) -> None:
        torch.manual_seed(1)
        make = nn.Sequential
        self.g = make(nn.Linear(LATENT, 8), nn.LeakyReLU(slope), nn.Linear(8, FEATURES)).to(device)
        self.d = make(nn.Linear(FEATURES, 8), nn.LeakyReLU(slope), nn.Linear(8, 1)).to(device)
        adam = dict(lr=1e-2, betas=(0.0, 0.9)) | adam
        self.g_optimizer = torch.optim.Adam(self.g.parameters(), **adam)
        self.d_optimizer = torch.optim.Adam(self.d.parameters(), **adam)
        self.average = [p.detach().clone() for p in self.g.parameters()]

    def noise(self, rows: Tensor) -> Tensor:
        return torch.randn(len(rows), LATENT, device=rows.device)

    def d_step(self, rows: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.g(self.noise(rows))
        mixed = torch.lerp(rows, fake, torch.rand(len(rows), 1, device=rows.device)).requires_grad_()
        (gradient,) = torch.autograd.grad(self.d(mixed).sum(), mixed, create_graph=True)
        penalty = (gradient.norm(dim=1) - 1).square().mean()
        wasserstein = self.d(rows).mean() - self.d(fake).mean()
        return {"loss": 10 * penalty - wasserstein, "wasserstein": wasserstein}

    def r1_step(self, rows: Tensor) -> dict[str, Tensor]:
        """The penalty at real rows, as published: it marks the batch itself (Mescheder et al. 2018)."""
        with torch.no_grad():
            fake = self.g(self.noise(rows))
        real = self.d(rows.requires_grad_())
        (gradient,) = torch.autograd.grad(real.sum(), rows, create_graph=True)
        return {"loss": self.d(fake).mean() - real.mean() + gradient.square().sum(1).mean()}

    def g_step(self, rows: Tensor) -> Tensor:
        return -self.d(self.g(self.noise(rows))).mean()

    def after(self) -> None:
        torch._foreach_lerp_(self.average, list(self.g.parameters()), 0.1)

    def captured(self, **options) -> AlternatingSteps:
        return capture_alternating(
            self.d_step, self.g_step, self.d_optimizer, self.g_optimizer, after=self.after, **options
        )

    def by_hand(self, batches: list[Tensor], clip_norm: float | None = None) -> tuple[float, float]:
        """The training loop of a textbook: what ``captured(...).step(*batches)`` must equal, bit by bit."""
        for rows in batches:
            self.d_optimizer.zero_grad()
            d_loss = self.d_step(rows)["loss"]
            d_loss.backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(self.d.parameters(), clip_norm)
            self.d_optimizer.step()
        self.g_optimizer.zero_grad()
        g_loss = self.g_step(batches[-1])
        g_loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(self.g.parameters(), clip_norm)
        self.g_optimizer.step()
        with torch.no_grad():
            self.after()
        return d_loss.item(), g_loss.item()

    def tensors(self) -> dict[str, Tensor]:
        out = {f"average.{i}": p for i, p in enumerate(self.average)}
        for name, network, optimizer in (("g", self.g, self.g_optimizer), ("d", self.d, self.d_optimizer)):
            for key, p in network.named_parameters():
                out[f"{name}.{key}"] = p.detach()
                out |= {f"{name}.{key}.{k}": v for k, v in optimizer.state[p].items()}
        return out


def batches(count: int, rows: int = 6) -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.rand(rows, FEATURES, generator=random) for _ in range(count)]


def captures(gan, stand_in, *, warmup=2, iterate=None, scaled=False, generators=(), **options):
    step = gan.captured(capture=False, **options)
    named = {"d_optimizer": gan.d_optimizer, "g_optimizer": gan.g_optimizer}
    for optimizer in named.values():  # as it must be on CUDA; the fused step on the CPU does not mind
        optimizer.param_groups[0]["capturable"] = True
    wrapped = stand_in.wrap(iterate or step._iterate)
    return Captures(wrapped, torch.device("cpu"), named, scaled, generators, warmup)


def run(found: Captures, *rows):
    metrics, names = found.run(*tree_flatten(list(rows)))
    return dict(zip(names, metrics.tolist(), strict=True))


def replaying(gan, stand_in) -> tuple[Captures, Tensor]:
    """Steps that have warmed up and are captured, and the batch that they had each time."""
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(3):
        run(found, rows)
    return found, rows
