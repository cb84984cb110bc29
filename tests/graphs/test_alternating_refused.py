"""What alternating steps refuse: arguments, losses, batches and modes, each by its name."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from wgan import Wgan, batches

from fastgan.errors import UserError
from fastgan.graphs import capture_alternating

pytestmark = pytest.mark.filterwarnings("ignore:capture_alternating. every call runs eagerly")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(capture=True), "capture: got True with parameters on cpu; wanted a CUDA device"),
        (dict(n_critic=0), "n_critic: got 0"),
        (dict(warmup=0), "warmup: got 0"),
        (dict(n_critic=True), "n_critic: got True"),
        (dict(clip_norm=-1.0), "clip_norm: got -1.0"),
        (dict(clip_norm=True), "clip_norm: got True"),
        (dict(clip_norm="a"), "clip_norm: got 'a'"),
        (dict(scaler=3), "scaler: got 3; wanted a torch.amp.GradScaler"),
        (dict(generators=(3,)), "generators: got 3"),
        (dict(generators=None), r"generators: got None; wanted a list of torch.Generator objects, or \(\)"),
        (dict(generators=torch.Generator()), "generators: got <torch.*; wanted a list"),
        (dict(capture="yes"), "capture: got 'yes'; wanted True, False or None"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Wgan().captured(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(d_step=3), "d_step: got 3; wanted a function"),
        (dict(after=3), "after: got 3; wanted a function"),
        (dict(g_optimizer=torch.nn.Linear(1, 1)), r"g_optimizer: got Linear\(.*; wanted an optimizer"),
        (dict(d_optimizer=[3, 4]), "d_optimizer: got a list of 2; wanted an optimizer, one for each network"),
        (
            dict(d_optimizer=torch.optim.LBFGS([torch.ones(1, requires_grad=True)])),
            "got LBFGS, whose step",
        ),
    ],
)
def test_arguments_of_another_kind(change, message):
    gan = Wgan()
    for name, value in change.items():
        setattr(gan, name, value)
    with pytest.raises(UserError, match=message):
        gan.captured()


def test_one_optimizer_for_both_is_refused():
    gan = Wgan()
    gan.g_optimizer = gan.d_optimizer
    with pytest.raises(UserError, match="g_optimizer: got the same object as d_optimizer"):
        gan.captured()


def test_a_loss_of_the_other_networks_parameters_is_refused():
    """Optimizers the wrong way round: the generator's loss depends on both networks, the other's does not."""
    gan, (rows,) = Wgan(), batches(1)
    gan.d_optimizer, gan.g_optimizer = gan.g_optimizer, gan.d_optimizer
    with pytest.raises(UserError, match="d_step: got a loss that depends on none of its parameters"):
        gan.captured().step(rows)


def test_parameters_that_were_added_are_refused():
    gan, (rows,) = Wgan(), batches(1)
    step = gan.captured()
    gan.d_optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(UserError, match="d_optimizer: got other parameters"):
        step.step(rows)


def test_optimizers_without_parameters_to_train():
    gan = Wgan()
    gan.g.requires_grad_(False)
    with pytest.raises(UserError, match="g_optimizer: got parameters on no device"):
        gan.captured()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda rows: 3.0, "d_step: got float; wanted a scalar loss"),
        (
            lambda rows: {"penalty": rows.sum()},
            r"d_step: got a dict with \['penalty'\]; wanted one with 'loss'",
        ),
        (lambda rows: {"loss": None}, "d_step: got NoneType"),
        (lambda rows: {"loss": rows.sum(), "penalty": 3.0}, "d_step: penalty: got float; wanted a scalar"),
        (
            lambda rows: {"loss": rows.sum(), "penalty": rows},
            r"d_step: penalty: got a tensor of shape \(6, 5\)",
        ),
        (
            lambda rows: torch.complex(rows, rows.clone().requires_grad_()).sum(),
            r"d_step: loss: got a scalar of torch.complex64; wanted a real one",
        ),
        (
            lambda rows: {
                "loss": rows.clone().requires_grad_().sum(),
                "hits": torch.empty((), device="meta"),
            },
            "d_step: hits: got a scalar on meta; wanted one on cpu",
        ),
        (lambda rows: rows.sum(), "without a gradient"),
        (lambda rows: rows, r"a tensor of shape \(6, 5\)"),
    ],
)
def test_bad_losses(loss, message):
    gan, (rows,) = Wgan(), batches(1)
    step = capture_alternating(loss, gan.g_step, gan.d_optimizer, gan.g_optimizer)
    with pytest.raises(UserError, match=message):
        step.step(rows)


def test_bad_batches():
    gan, (rows,) = Wgan(), batches(1)
    with pytest.raises(UserError, match="step: got 2 batches; wanted one, or n_critic = 3"):
        gan.captured(n_critic=3).step(rows, rows)
    with pytest.raises(UserError, match="a batch with a str"):
        gan.captured().step((rows, "label"))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calls_without_gradients_are_refused(mode):
    gan, (rows,) = Wgan(), batches(1)
    with mode(), pytest.raises(UserError, match=r"step: got a call inside of no_grad\(\)"):
        gan.captured().step(rows)


def test_reentrant_checkpoints_are_refused():
    gan, (rows,) = Wgan(), batches(1)
    gan.g_step = lambda rows: checkpoint(gan.d, gan.g(gan.noise(rows)), use_reentrant=True).mean()
    with pytest.raises(UserError, match=r"g_step: got checkpoint.*; wanted use_reentrant=False"):
        gan.captured().step(rows)


def test_outer_autocast_is_refused():
    gan, (rows,) = Wgan(), batches(1)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match="inside of autocast"),
    ):
        gan.captured().step(rows)
