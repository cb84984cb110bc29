"""The reference engine: one alternating GAN step in plain PyTorch. Everything faster is held against it.

A step is ``d_steps`` discriminator steps, one generator step and the moving average:

    D:  min  E softplus(-D(x)) + E softplus(D(G(z)))     bce, minimax: log D(x) + log(1 - D(G(z)))
             E softplus(D(G(z)) - D(x))                  rpgan: rows paired
        plus penalty_every * (r1/2 E |grad_x D(x)|^2 + r2/2 E |grad_x D(G(z))|^2) every so many steps
    G:  min  E softplus(-D(G(z)))                        bce (max log D(G(z)))
             -E softplus(D(G(z)))                        minimax (min log(1 - D(G(z))))
             E softplus(D(x) - D(G(z)))                  rpgan

Goodfellow et al. 2014 (bce, minimax); Jolicoeur-Martineau 2018 and Huang et al. 2024 (rpgan, R1 + R2);
Mescheder et al. 2018 (R1, R2); Salimans et al. 2016, section 3.4 (one-sided label smoothing).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import noise
from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.engines.protocol import METRICS
from fastgan.models import Discriminator, Generator
from fastgan.noise import Stream
from fastgan.spec import ModelSpec
from fastgan.state import State


class ReferenceEngine:
    """Plain PyTorch on the CPU; ``dtype=torch.float64`` gives the truth that parity is measured against.

    Args:
        config: all options.
        data: the training rows.
        dtype: of parameters and arithmetic.
    """

    name = "reference"

    def __init__(self, config: Config, data: Data, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = config, dtype
        self.spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
        self.rows, self.labels = data.rows, data.labels if config.condition else None
        self.scale, self.shift = data.schema.affine(config.head)
        self.generator = Generator(self.spec).to(dtype)
        self.average = Generator(self.spec).to(dtype).requires_grad_(False)
        self.discriminator = Discriminator(self.spec).to(dtype)
        self._networks = {"generator": self.generator, "discriminator": self.discriminator}
        self._stop = False

    def describe(self) -> str:
        """Return where and how it runs."""
        return f"plain PyTorch {torch.__version__} on the CPU"

    def load(self, state: State) -> None:
        """Copy ``state`` into the modules and fresh optimizers."""
        state.check(self.spec)
        self.seed, self.step = state.seed, state.step
        self.average.load_state_dict(state.part("ema"))
        self._adam = {}
        for name, network in self._networks.items():
            network.load_state_dict(state.part(name))
            betas = (self.config.beta1, self.config.beta2)
            adam = torch.optim.Adam(network.parameters(), betas=betas, eps=self.config.eps, fused=True)
            updates = state.step * (self.config.d_steps if name == "discriminator" else 1)
            for key, p in network.named_parameters():
                adam.state[p] = {
                    "step": torch.tensor(float(updates)),
                    "exp_avg": state.tensors[f"exp_avg.{name}.{key}"].to(self.dtype, copy=True),
                    "exp_avg_sq": state.tensors[f"exp_avg_sq.{name}.{key}"].to(self.dtype, copy=True),
                }
            self._adam[name] = adam

    def export(self) -> State:
        """Return a copy of parameters, moments and moving average."""
        tensors = {f"ema.{k}": p.detach().clone() for k, p in self.average.named_parameters()}
        for name, network in self._networks.items():
            for key, p in network.named_parameters():
                tensors[f"{name}.{key}"] = p.detach().clone()
                for moment in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{moment}.{name}.{key}"] = self._adam[name].state[p][moment].clone()
        return State(tensors, self.seed, self.step)

    def stop(self) -> None:
        """Make :meth:`run` return after the current step, or else the next one before its first."""
        self._stop = True

    def run(self, steps: int) -> np.ndarray:
        """Run up to ``steps`` steps; see :class:`~fastgan.engines.protocol.Engine`."""
        metrics: list[list[float]] = []
        while len(metrics) < steps:
            if self._stop:
                self._stop = False
                break
            metrics.append(self._one_step())
        return np.array(metrics, dtype=np.float32).reshape(-1, len(METRICS))

    def _one_step(self) -> list[float]:
        c = self.config
        self._set_learning_rates()
        for i in range(c.d_steps):
            update = self.step * c.d_steps + i
            x, labels = self._real_batch(update)
            z = self._noise(Stream.D_NOISE, update)
            d_metrics = self._d_step(x, labels, z, penalized=c.has_penalty and update % c.penalty_every == 0)
        if not c.reuse_fakes:
            z = self._noise(Stream.G_NOISE, self.step)
        g_loss = self._g_step(x, labels, z)
        with torch.no_grad():
            for average, p in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(p, 1.0 - c.ema_decay(self.step))
        self.step += 1
        d_loss, *rest = d_metrics
        return [d_loss, g_loss, *rest]

    def _d_step(self, x: Tensor, labels: Tensor | None, z: Tensor, penalized: bool) -> list[float]:
        c = self.config
        with torch.no_grad():
            fake = self.generator(z, labels)
        rows = torch.cat([x, fake]).requires_grad_(penalized)
        logits = self.discriminator(rows, None if labels is None else torch.cat([labels, labels]))
        real, generated = logits.chunk(2)
        if c.loss == "rpgan":
            loss = F.softplus(generated - real).mean()
        else:
            target = torch.full_like(real, 1.0 - c.label_smoothing)
            loss = F.binary_cross_entropy_with_logits(real, target)
            loss = loss + F.binary_cross_entropy_with_logits(generated, torch.zeros_like(generated))
        total, penalty = loss, torch.tensor(torch.nan)
        if penalized:
            (gradient,) = torch.autograd.grad(logits.sum(), rows, create_graph=True)
            real_norm, generated_norm = gradient.square().sum(1).chunk(2)
            penalty = 0.5 * c.r1 * real_norm.mean() + 0.5 * c.r2 * generated_norm.mean()
            total = loss + c.penalty_every * penalty
        self._update("discriminator", total)
        shares = [(real > 0), (generated < 0), (real > generated)]
        return [loss.item(), penalty.item(), *(s.to(self.dtype).mean().item() for s in shares)]

    def _g_step(self, x: Tensor, labels: Tensor | None, z: Tensor) -> float:
        logits = self.discriminator(self.generator(z, labels), labels)
        if self.config.loss == "rpgan":
            with torch.no_grad():
                real = self.discriminator(x, labels)
            loss = F.softplus(real - logits).mean()
        elif self.config.loss == "bce":
            loss = F.softplus(-logits).mean()
        else:
            loss = -F.softplus(logits).mean()
        self._update("generator", loss)
        return loss.item()

    def _update(self, name: str, loss: Tensor) -> None:
        """One Adam step (Kingma & Ba 2015, algorithm 1) of one network; the other gets no gradients."""
        parameters = list(self._networks[name].parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        self._adam[name].step()

    def _set_learning_rates(self) -> None:
        c = self.config
        rates = {"generator": (c.g_lr, c.g_schedule), "discriminator": (c.d_lr, c.d_schedule)}
        for name, (lr, schedule) in rates.items():
            self._adam[name].param_groups[0]["lr"] = lr * c.lr_factor(schedule, self.step)

    def _noise(self, stream: Stream, update: int) -> Tensor:
        batch = self.config.batch
        z = noise.normal(self.seed, stream, update * batch, batch, self.spec.latent)
        return torch.from_numpy(z).to(self.dtype)

    def _real_batch(self, update: int) -> tuple[Tensor, Tensor | None]:
        batch = self.config.batch
        index = noise.epoch_index(self.seed, update * batch, batch, len(self.rows))
        # NumPy gathers, since the whole array may be read-only, which torch.from_numpy warns about.
        x = torch.from_numpy(self.rows[index]).to(self.dtype).mul_(self.scale).add_(self.shift)
        return x, None if self.labels is None else torch.from_numpy(self.labels[index])
