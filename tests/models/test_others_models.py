"""fastgan.fuse on other people's GANs: the same outputs, gradients, penalties and training.

The truth is the plain model in float64. The fused model in float32 may be twice as far from it as the plain
one in float32, and a few roundings. Rounding decides now and then on which side of zero an activation's input
falls, so what counts is the median over seeds. At these sizes auto runs PyTorch's operators, so the native
code and the interpreted Triton kernels are asked for by name.
"""

from __future__ import annotations

import copy
import functools
from statistics import median
from unittest import mock

import gans
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastgan
from fastgan.fusion import call
from fastgan.ops import linear_leaky_relu
from fastgan.ops.backends import cpu
from fastgan.parity import distance, largest_difference

SEEDS = 3
STEPS = 20

MODELS = pytest.mark.parametrize("kind", gans.MODELS, ids=lambda c: c.__name__)


@pytest.fixture(params=["auto", "cpu"])
def impl(request):
    """What computes the ops of fused models."""
    with ops_by(request.param):
        yield request.param


def ops_by(impl: str):
    """Return a context in which fused models call their op with this ``impl``."""
    return mock.patch.object(call, "linear_leaky_relu", functools.partial(linear_leaky_relu, impl=impl))


def built(
    kind: type[gans.GAN],
    seed: int,
    dtype: torch.dtype = torch.float32,
    fused: bool = False,
    impl: str = "auto",
) -> gans.GAN:
    torch.manual_seed(seed)
    model = kind().to(dtype)
    if fused:
        fastgan.fuse(model)
        model.loss = fastgan.layers.BCEWithLogitsLoss(impl=impl)
    return model


def batches(model: gans.GAN, seed: int, n: int) -> list[gans.Batch]:
    random = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    drawn = [model.draw(random) for _ in range(n)]
    return [{k: v.to(dtype) if v.is_floating_point() else v for k, v in b.items()} for b in drawn]


def evaluation(model: gans.GAN, seed: int) -> dict[str, dict[str, Tensor]]:
    """Return losses, gradients by name (through a gradient penalty where there is one), and the penalty."""
    (batch,) = batches(model, seed, 1)
    out: dict[str, dict[str, Tensor]] = {"losses": {}, "gradients": {}}
    for half in ("discriminator", "generator"):
        torch.manual_seed(seed)  # dropout
        loss = model.d_loss(batch) if half == "discriminator" else model.g_loss(batch)
        parameters = dict(getattr(model, half).named_parameters())
        gradients = torch.autograd.grad(loss, [*parameters.values()])
        out["losses"][half] = loss.detach()
        out["gradients"] |= {f"{half}.{n}": g for n, g in zip(parameters, gradients, strict=True)}
    if hasattr(model, "penalty"):
        torch.manual_seed(seed)
        out["penalty"] = {"": model.penalty(batch).detach()}
    return out


class Training:
    """A GAN in training; its state can move to another model."""

    def __init__(self, model: gans.GAN, seed: int) -> None:
        self.model, self.seed, self.done = model, seed, 0
        # An epsilon that keeps Adam from making whole steps of roundings.
        self.optimizers = [
            torch.optim.Adam(half.parameters(), 2e-4, (0.5, 0.999), eps=1e-4)
            for half in (model.discriminator, model.generator)
        ]

    def run(self, steps: int) -> Training:
        for batch in batches(self.model, self.seed, self.done + steps)[self.done :]:
            torch.manual_seed(1000 * self.seed + self.done)  # dropout
            for optimizer, loss in zip(self.optimizers, (self.model.d_loss, self.model.g_loss), strict=True):
                self.model.zero_grad()
                loss(batch).backward()
                optimizer.step()
            self.done += 1
        return self

    def to(self, model: gans.GAN) -> Training:
        """Return the same training with another model, by way of checkpoints only."""
        other = Training(model, self.seed)
        assert not model.load_state_dict(copy.deepcopy(self.model.state_dict()))[0]
        for mine, its in zip(self.optimizers, other.optimizers, strict=True):
            its.load_state_dict(copy.deepcopy(mine.state_dict()))
        other.done = self.done
        return other

    def state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}


@functools.cache
def plain_evaluations(kind, seed, dtype):
    return evaluation(built(kind, seed, dtype), seed)


@functools.cache
def plain_training(kind, seed, dtype):
    return Training(built(kind, seed, dtype), seed).run(STEPS).state()


def evaluation_shares(kind, seeds: int = SEEDS, impl: str = "auto") -> dict[str, float]:
    """Return how far the fused model is off, as a share of what it may be: the median over seeds."""
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        truth, plain = (plain_evaluations(kind, seed, dtype) for dtype in (torch.float64, torch.float32))
        fused = evaluation(built(kind, seed, fused=True, impl=impl), seed)
        for what in truth:
            shares.setdefault(what, []).append(distance(truth[what], plain[what], fused[what]).share)
    return {what: middle(found) for what, found in shares.items()}


def middle(shares: list[float]) -> float:
    return median(float("inf") if share != share else share for share in shares)


@MODELS
def test_the_pairs_that_are_fused(kind, ran):
    model = built(kind, 0, fused=True)
    (batch,) = batches(model, 0, 1)
    model.g_loss(batch)
    assert len(ran) == kind.fused


@MODELS
def test_losses_gradients_and_penalties(kind, impl):
    check_evaluation(kind, impl)


def check_evaluation(kind, impl: str) -> None:
    shares = evaluation_shares(kind, impl=impl)
    assert ("penalty" in shares) == hasattr(kind, "penalty")
    assert max(shares.values()) <= 1.0, shares


@MODELS
def test_the_native_code_runs_if_asked_for(kind):
    watched = [mock.patch.object(cpu, name, wraps=getattr(cpu, name)) for name in ("dense_fwd", "dense_bwd")]
    with ops_by("cpu"), watched[0] as forward, watched[1] as backward:
        evaluation(built(kind, 0, fused=True, impl="cpu"), 0)
    assert forward.call_count >= kind.fused and backward.called


@pytest.mark.interpreted
@pytest.mark.parametrize("name", ["Conditional", "Wasserstein"])
def test_on_the_triton_kernels(name):
    with ops_by("triton"):
        check_evaluation(getattr(gans, name), "triton")


@MODELS
def test_twenty_steps_of_training(kind, impl):
    shares = []
    for seed in range(SEEDS):
        truth, plain = (plain_training(kind, seed, dtype) for dtype in (torch.float64, torch.float32))
        fused = Training(built(kind, seed, fused=True, impl=impl), seed).run(STEPS).state()
        assert largest_difference(built(kind, seed).state_dict(), truth) > 1e-3  # it did train
        shares.append(distance(truth, plain, fused).share)
    assert middle(shares) <= 1.0, shares


@MODELS
@pytest.mark.parametrize("fused_first", [True, False], ids=["fused, then plain", "plain, then fused"])
def test_checkpoints_swap_both_ways(kind, fused_first):
    with ops_by("cpu"):
        shares = swapped_shares(kind, fused_first)
    assert middle(shares) <= 1.0, shares


def swapped_shares(kind, fused_first: bool) -> list[float]:
    """Return how far training is off that moves from the fused to the plain model half-way, or back."""
    shares = []
    for seed in range(SEEDS):
        truth, plain = (plain_training(kind, seed, dtype) for dtype in (torch.float64, torch.float32))
        first, second = (
            built(kind, seed + 100 * i, fused=fused_first is not bool(i), impl="cpu") for i in range(2)
        )
        first.load_state_dict(built(kind, seed).state_dict())
        swapped = Training(first, seed).run(STEPS // 2).to(second).run(STEPS // 2)
        shares.append(distance(truth, plain, swapped.state()).share)
    return shares


def mistaken(name: str):
    def op(x, weight, bias, slope):
        if name == "another slope":
            slope = slope + 0.01
        if name == "no bias":
            bias = 0 * bias
        y = F.leaky_relu(F.linear(x, weight, bias), slope)
        return {"zeros": 0 * y, "another sign": -y, "1 in 1,000 off": 1.001 * y}.get(name, y)

    return op


@MODELS
@pytest.mark.parametrize("mistake", ["another slope", "no bias", "zeros", "another sign", "1 in 1,000 off"])
def test_mistakes_are_seen(kind, mistake, monkeypatch):
    monkeypatch.setattr(call, "linear_leaky_relu", mistaken(mistake))
    shares = evaluation_shares(kind, seeds=1)
    assert all(share > 1.0 for share in shares.values()), shares


def test_another_order_of_summation_passes(monkeypatch):
    def op(x, weight, bias, slope):
        half = weight.shape[1] // 2
        y = F.linear(x[:, half:], weight[:, half:]) + F.linear(x[:, :half], weight[:, :half], bias)
        return F.leaky_relu(y, slope)

    monkeypatch.setattr(call, "linear_leaky_relu", op)
    for kind in gans.MODELS:
        check_evaluation(kind, "auto")
    test_twenty_steps_of_training(gans.Conditional, "auto")
