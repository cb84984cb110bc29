"""Small GANs in the styles of the well-known public ones, each with its losses, in plain PyTorch.

Each model draws its batch from a generator of random numbers in float64, so that every dtype sees the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm1d, Dropout, LeakyReLU, Linear, Module, ReLU, Sequential

Batch = dict[str, Tensor]
ROWS = 20


def gradient_penalty(critic: Module, rows: Tensor, pac: int = 1) -> Tensor:
    """Return the mean of ``(|d critic / d rows| - 1)^2`` (Gulrajani et al. 2017), over packs of rows."""
    rows = rows.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(rows).sum(), rows, create_graph=True)
    return ((slopes.view(len(rows) // pac, -1).norm(2, dim=1) - 1) ** 2).mean()


class GAN(Module, ABC):
    """A generator, a discriminator and what they are trained for."""

    fused = 0  # how many pairs are fused, one by one, when both halves run once

    generator: Module
    discriminator: Module
    loss: Module = nn.BCEWithLogitsLoss()

    @abstractmethod
    def draw(self, random: torch.Generator) -> Batch:
        """Return real rows and whatever else a step needs, in float64."""

    @abstractmethod
    def d_loss(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss."""

    @abstractmethod
    def g_loss(self, batch: Batch) -> Tensor:
        """Return the generator's loss."""


def ones(logits: Tensor) -> Tensor:
    return torch.ones_like(logits)


class Plain(GAN):
    """The first one that everybody writes: Sequentials with activations in place, BCE."""

    fused = 3

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, normalize: bool = True) -> list[Module]:
            norm = [nn.BatchNorm1d(outputs, 0.8)] if normalize else []
            return [nn.Linear(inputs, outputs), *norm, nn.LeakyReLU(0.2, inplace=True)]

        self.generator = nn.Sequential(
            *block(32, 64, normalize=False), *block(64, 128), nn.Linear(128, 784), nn.Tanh()
        )
        self.discriminator = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(256, 1),
        )

    def draw(self, random: torch.Generator) -> Batch:
        real = torch.rand(ROWS, 1, 28, 28, generator=random, dtype=torch.float64) * 2 - 1
        return {"real": real, "z": torch.randn(ROWS, 32, generator=random, dtype=torch.float64)}

    def d_loss(self, batch: Batch) -> Tensor:
        real = self.discriminator(batch["real"])
        fake = self.discriminator(self.generator(batch["z"]).detach())
        return (self.loss(real, ones(real)) + self.loss(fake, torch.zeros_like(fake))) / 2

    def g_loss(self, batch: Batch) -> Tensor:
        fake = self.discriminator(self.generator(batch["z"]))
        return self.loss(fake, ones(fake))


class ConditionalGenerator(Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 10)
        self.fc1, self.fc2, self.fc3 = Linear(16 + 10, 48), Linear(48, 96), Linear(96, 60)
        self.relu = ReLU(True)

    def forward(self, z, labels=None):
        if labels is None:
            labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
        x = torch.cat([z, self.embedding(labels)], 1)
        x = self.relu(self.fc1(x))
        x = self.fc2(x)
        x = self.relu(x)
        return torch.tanh(self.fc3(x))


class ConditionalDiscriminator(Module):
    def __init__(self) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(10, 10)
        self.fc1 = nn.Linear(60 + 10, 64)
        self.fc2 = nn.Linear(self.fc1.out_features, self.fc1.out_features // 2)
        self.fc3 = nn.Linear(32, 1)
        self.slope = 0.2

    def forward(self, img, labels):
        x = torch.cat((img.view(img.size(0), -1), self.label_embedding(labels)), -1)
        x = F.dropout(F.leaky_relu(self.fc1(x), self.slope), 0.3, training=self.training)
        x = F.leaky_relu(self.fc2(x), negative_slope=0.2)
        return self.fc3(x)


class Conditional(Plain):
    """Label embeddings, hand-written forwards, dropout between functions."""

    fused = 4

    def __init__(self) -> None:
        Module.__init__(self)
        self.generator, self.discriminator = ConditionalGenerator(), ConditionalDiscriminator()

    def draw(self, random: torch.Generator) -> Batch:
        real = torch.randn(ROWS, 60, generator=random, dtype=torch.float64).clamp(-1, 1)
        z = torch.randn(ROWS, 16, generator=random, dtype=torch.float64)
        return {"real": real, "z": z, "labels": torch.randint(0, 10, (ROWS,), generator=random)}

    def d_loss(self, batch: Batch) -> Tensor:
        fakes = self.generator(batch["z"], batch["labels"]).detach()
        real, fake = (self.discriminator(x, batch["labels"]) for x in (batch["real"], fakes))
        return self.loss(real, 0.9 * ones(real)) + self.loss(fake, torch.zeros_like(fake))

    def g_loss(self, batch: Batch) -> Tensor:
        fake = self.discriminator(self.generator(batch["z"], batch["labels"]), batch["labels"])
        return self.loss(fake, ones(fake))


class Wasserstein(GAN):
    """WGAN-GP on points of the plane: a critic with ReLU, penalized between real and generated points."""

    fused = 6

    def __init__(self) -> None:
        super().__init__()
        width = 48

        def net(last: int) -> Sequential:
            hidden = [m for _ in range(2) for m in (nn.Linear(width, width), nn.ReLU(True))]
            return nn.Sequential(nn.Linear(2, width), nn.ReLU(True), *hidden, nn.Linear(width, last))

        self.generator, self.discriminator = net(2), net(1)

    def draw(self, random: torch.Generator) -> Batch:
        angles = torch.rand(ROWS, generator=random, dtype=torch.float64) * 6.28
        real = torch.stack([angles.cos(), angles.sin()], 1)
        return {
            "real": real,
            "z": torch.randn(ROWS, 2, generator=random, dtype=torch.float64),
            "mix": torch.rand(ROWS, 1, generator=random, dtype=torch.float64),
        }

    def penalty(self, batch: Batch) -> Tensor:
        fake = self.generator(batch["z"])
        return gradient_penalty(self.discriminator, batch["real"].lerp(fake, batch["mix"]))

    def d_loss(self, batch: Batch) -> Tensor:
        fake = self.generator(batch["z"]).detach()
        critic = self.discriminator(fake).mean() - self.discriminator(batch["real"]).mean()
        return critic + 0.1 * self.penalty(batch)

    def g_loss(self, batch: Batch) -> Tensor:
        return -self.discriminator(self.generator(batch["z"])).mean()


class Residual(Module):
    """A dense layer whose output is put beside its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc, self.bn, self.relu = Linear(inputs, outputs), BatchNorm1d(outputs), ReLU()

    def forward(self, x):
        out = self.fc(x)
        out = self.bn(out)
        out = self.relu(out)
        return torch.cat([out, x], dim=1)


class PackedDiscriminator(Module):
    """Judges several rows at once (Lin et al. 2018), and asserts that there are as many as it wants."""

    def __init__(self, features: int, widths: tuple[int, ...], pac: int) -> None:
        super().__init__()
        self.pac, self.width = pac, features * pac
        layers, width = [], self.width
        for w in widths:
            layers += [Linear(width, w), LeakyReLU(0.2), Dropout(0.5)]
            width = w
        self.seq = Sequential(*layers, Linear(width, 1))

    def forward(self, rows):
        assert rows.size()[0] % self.pac == 0
        return self.seq(rows.view(-1, self.width))


class Packed(GAN):
    """A tabular GAN: packed rows, dropout after each activation, residual blocks, columns of two kinds."""

    fused = 2

    def __init__(self) -> None:
        super().__init__()
        self.generator = Sequential(Residual(12, 24), Residual(36, 24), Linear(60, 7))
        self.discriminator = PackedDiscriminator(7, (48, 32), pac=5)

    def draw(self, random: torch.Generator) -> Batch:
        numbers = torch.randn(ROWS, 3, generator=random, dtype=torch.float64).tanh()
        kinds = F.one_hot(torch.randint(0, 4, (ROWS,), generator=random), 4)
        return {
            "real": torch.cat([numbers, kinds.double()], 1),
            "z": torch.randn(ROWS, 12, generator=random, dtype=torch.float64),
            "mix": torch.rand(ROWS, 1, generator=random, dtype=torch.float64),
        }

    def rows(self, batch: Batch) -> Tensor:
        raw = self.generator(batch["z"])
        return torch.cat([raw[:, :3].tanh(), F.softmax(raw[:, 3:], dim=1)], 1)

    def penalty(self, batch: Batch) -> Tensor:
        rows = batch["real"].lerp(self.rows(batch), batch["mix"])
        return 10 * gradient_penalty(self.discriminator, rows, self.discriminator.pac)

    def d_loss(self, batch: Batch) -> Tensor:
        fake = self.discriminator(self.rows(batch).detach())
        return fake.mean() - self.discriminator(batch["real"]).mean() + self.penalty(batch)

    def g_loss(self, batch: Batch) -> Tensor:
        return -self.discriminator(self.rows(batch)).mean()


MODELS = (Plain, Conditional, Wasserstein, Packed)
