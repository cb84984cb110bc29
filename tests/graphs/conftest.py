"""A GAN, and what stands in for the GPU that captures it."""

from __future__ import annotations

import pytest
from helpers.graph_stand_in import StandIn
from wgan import Wgan


@pytest.fixture
def gan():
    return Wgan(fused=True)


@pytest.fixture
def stand_in(monkeypatch, gan):
    return StandIn(monkeypatch, gan.tensors)
