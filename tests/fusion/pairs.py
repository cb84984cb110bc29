"""The smallest Sequential that is fused, and its input."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.fusion import places

X = torch.randn(6, 4)


def pair(activation: nn.Module | None = None, **options) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4, **options), activation or nn.LeakyReLU(0.2))


def reasons(model: nn.Module) -> list[str]:
    return [place.reason for place in places(model)]
