"""The GAN of the papers, written down literally in float64: slow, and independent of the engines.

No fused losses, no batched tricks: probabilities and their logarithms, one row at a time for the penalties,
Adam line by line. Only the addresses of the random numbers come from fastgan, since they are the contract.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastgan import noise
from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.state import State

HEADS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "linear": nn.Identity}


def sequential(values: dict[str, Tensor], slope: float, head: nn.Module) -> nn.Sequential:
    """Return Linear, LeakyReLU, ..., Linear, head in float64 from ``layers.0.weight`` and so on."""
    layers: list[nn.Module] = []
    for i in range(len(values) // 2):
        weight, bias = values[f"layers.{i}.weight"], values[f"layers.{i}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        layers += [linear, nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1], head)


class LiteralGan:
    """One GAN in training, from a state on."""

    def __init__(self, config: Config, data: Data, state: State) -> None:
        self.c, self.data, self.step, self.seed = config, data, state.step, state.seed
        self.g = sequential(state.part("generator"), config.slope, HEADS[config.head]())
        self.d = sequential(state.part("discriminator"), config.slope, nn.Identity())
        self.average = {k: v.double() for k, v in state.part("ema").items()}
        self.m = {k: v.double() for k, v in state.part("exp_avg").items()}
        self.v = {k: v.double() for k, v in state.part("exp_avg_sq").items()}

    def run(self, steps: int) -> list[list[float]]:
        """Run some steps and return their metrics, in the order of ``METRICS``."""
        return [self.one_step() for _ in range(steps)]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything under the names of a :class:`State`."""
        out = {f"ema.{k}": v for k, v in self.average.items()}
        for name in ("generator", "discriminator"):
            out |= {k: p.detach() for k, p in self.parameters(name).items()}
        out |= {f"exp_avg.{k}": v for k, v in self.m.items()}
        return out | {f"exp_avg_sq.{k}": v for k, v in self.v.items()}

    # ---- networks

    def parameters(self, name: str) -> dict[str, Tensor]:
        linears = [m for m in (self.g if name == "generator" else self.d) if isinstance(m, nn.Linear)]
        out = {}
        for i, linear in enumerate(linears):
            out[f"{name}.layers.{i}.weight"], out[f"{name}.layers.{i}.bias"] = linear.weight, linear.bias
        return out

    def with_label(self, rows: Tensor, labels: list[int]) -> Tensor:
        if not self.c.condition:
            return rows
        one_hot = torch.zeros(len(rows), len(self.data.schema.classes), dtype=torch.float64)
        for i, label in enumerate(labels):
            one_hot[i, label] = 1.0
        return torch.cat([rows, one_hot], dim=1)

    def generate(self, z: Tensor, labels: list[int]) -> Tensor:
        return self.g(self.with_label(z, labels))

    def logits(self, x: Tensor, labels: list[int]) -> Tensor:
        return self.d(self.with_label(x, labels))[:, 0]

    # ---- data and noise

    def real(self, update: int) -> tuple[Tensor, list[int]]:
        batch = self.c.batch
        rows, labels = [], []
        for position in range(update * batch, (update + 1) * batch):
            (row,) = noise.epoch_index(self.seed, position, 1, len(self.data.rows))
            values = self.data.rows[row].tolist()
            if self.data.schema.dtype == "uint8":
                values = [v / 255 for v in values]
                if self.c.head == "tanh":
                    values = [2 * v - 1 for v in values]
            rows.append(values)
            labels.append(int(self.data.labels[row]) if self.data.labels is not None else 0)
        return torch.tensor(rows, dtype=torch.float64), labels

    def noise(self, stream: noise.Stream, update: int) -> Tensor:
        rows = [
            noise.normal(self.seed, stream, update * self.c.batch + i, 1, self.c.latent)
            for i in range(self.c.batch)
        ]
        return torch.cat([torch.from_numpy(r) for r in rows]).double()

    # ---- the step

    def one_step(self) -> list[float]:
        c = self.c
        for i in range(c.d_steps):
            update = self.step * c.d_steps + i
            x, labels = self.real(update)
            z = self.noise(noise.Stream.D_NOISE, update)
            fake = self.generate(z, labels).detach()
            real_logits, fake_logits = self.logits(x, labels), self.logits(fake, labels)
            d_loss = self.d_loss(real_logits, fake_logits)
            total, penalty = d_loss, math.nan
            if (c.r1 or c.r2) and update % c.penalty_every == 0:
                p = c.r1 / 2 * self.squared_gradient(x, labels) + c.r2 / 2 * self.squared_gradient(
                    fake, labels
                )
                total, penalty = d_loss + c.penalty_every * p, p.item()
            self.adam("discriminator", total, c.d_lr, c.d_schedule, update + 1)
            d_metrics = [
                penalty,
                sum(r > 0 for r in real_logits.tolist()) / c.batch,
                sum(f < 0 for f in fake_logits.tolist()) / c.batch,
                sum(r > f for r, f in zip(real_logits.tolist(), fake_logits.tolist(), strict=True)) / c.batch,
            ]
        if not c.reuse_fakes:
            z = self.noise(noise.Stream.G_NOISE, self.step)
        g_loss = self.g_loss(self.logits(x, labels), self.logits(self.generate(z, labels), labels))
        self.adam("generator", g_loss, c.g_lr, c.g_schedule, self.step + 1)

        decay = min(c.ema, (1 + self.step) / (c.ema_warmup + self.step))
        for name, p in self.parameters("generator").items():
            key = name.removeprefix("generator.")
            self.average[key] = decay * self.average[key] + (1 - decay) * p.detach()
        self.step += 1
        return [d_loss.item(), g_loss.item(), *d_metrics]

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.c.loss == "rpgan":
            return -torch.log(torch.sigmoid(real - fake)).mean()
        p_real, p_fake, target = torch.sigmoid(real), torch.sigmoid(fake), 1 - self.c.label_smoothing
        on_real = target * torch.log(p_real) + (1 - target) * torch.log(1 - p_real)
        return -(on_real + torch.log(1 - p_fake)).mean()

    def g_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.c.loss == "rpgan":
            return -torch.log(torch.sigmoid(fake - real)).mean()
        if self.c.loss == "bce":
            return -torch.log(torch.sigmoid(fake)).mean()
        return torch.log(1 - torch.sigmoid(fake)).mean()

    def squared_gradient(self, rows: Tensor, labels: list[int]) -> Tensor:
        """Mean over rows of |grad_x D(x)|^2, one row at a time."""
        total = torch.zeros((), dtype=torch.float64)
        for row, label in zip(rows, labels, strict=True):
            row = row.clone().requires_grad_()
            logit = self.logits(row[None, :], [label])[0]
            (gradient,) = torch.autograd.grad(logit, row, create_graph=True)
            total = total + (gradient * gradient).sum()
        return total / len(rows)

    def adam(self, name: str, loss: Tensor, lr: float, schedule: str, t: int) -> None:
        """Kingma & Ba 2015, algorithm 1, with the learning rate of this step."""
        c = self.c
        alpha = lr * self.lr_factor(schedule)
        parameters = self.parameters(name)
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        with torch.no_grad():
            for (key, theta), g in zip(parameters.items(), gradients, strict=True):
                self.m[key] = c.beta1 * self.m[key] + (1 - c.beta1) * g
                self.v[key] = c.beta2 * self.v[key] + (1 - c.beta2) * g * g
                m_hat = self.m[key] / (1 - c.beta1**t)
                v_hat = self.v[key] / (1 - c.beta2**t)
                theta -= alpha * m_hat / (torch.sqrt(v_hat) + c.eps)

    def lr_factor(self, schedule: str) -> float:
        progress, c = self.step / self.c.steps, self.c
        if schedule == "constant" or progress <= c.decay_from:
            return 1.0
        share = (progress - c.decay_from) / (1 - c.decay_from)
        if schedule == "linear":
            return 1 - share + share * c.decay_to
        return c.decay_to + (1 - c.decay_to) * (1 + math.cos(math.pi * share)) / 2
