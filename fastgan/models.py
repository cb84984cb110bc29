"""The two networks, built from a spec. Plain PyTorch: what you would write yourself.

Both are dense networks with LeakyReLU between the layers; the generator ends in a head (sigmoid, tanh or
linear), the discriminator in one logit. With labels, the one-hot label is appended to the input of both.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan import noise
from fastgan.spec import ModelSpec


class _Dense(nn.Module):
    """Linear layers with LeakyReLU between them; the last one is left linear."""

    def __init__(self, widths: tuple[int, ...], slope: float, classes: int) -> None:
        super().__init__()
        self.slope, self.classes = slope, classes
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))

    def _run(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if self.classes:
            if labels is None:
                raise ValueError(f"labels: got None; wanted integers [B] below {self.classes}")
            x = torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), self.slope)
        return self.layers[-1](x)


class Generator(_Dense):
    """``z [B, latent]`` (and ``labels [B]``) to rows ``[B, features]`` in the head's range."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec.g_widths, spec.slope, spec.classes)
        self.head = spec.head

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return generated rows, ``[B, features]``."""
        x = self._run(z, labels)
        return torch.sigmoid(x) if self.head == "sigmoid" else torch.tanh(x) if self.head == "tanh" else x


class Discriminator(_Dense):
    """Rows ``x [B, features]`` (and ``labels [B]``) to one logit each, ``[B]``: positive means real."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec.d_widths, spec.slope, spec.classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits, ``[B]``."""
        return self._run(x, labels).squeeze(1)

    def probability(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the probability of each row being real, ``[B]`` in [0, 1]."""
        return torch.sigmoid(self(x, labels))


def init_parameters(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Return initial parameters, float32, by name: ``nn.Linear``'s distribution, a pure function of the seed.

    Weights and biases are uniform in +-1/sqrt(inputs). Row ``r`` of layer ``l`` of a network is row
    ``(2 * l + network) << 32 | r`` of the stream ``INIT`` (generator 0, discriminator 1); its bias is the
    column after the weights.
    """
    out: dict[str, Tensor] = {}
    for network, (name, widths) in enumerate(
        (("generator", spec.g_widths), ("discriminator", spec.d_widths))
    ):
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            u = noise.uniform(seed, noise.Stream.INIT, (2 * layer + network) << 32, outputs, inputs + 1)
            values = torch.from_numpy((2.0 * u - 1.0) * np.float32(inputs**-0.5))
            # clone, since weight and bias of a single output would otherwise share memory
            out[f"{name}.layers.{layer}.weight"] = values[:, :inputs].clone()
            out[f"{name}.layers.{layer}.bias"] = values[:, inputs].clone()
    return out
