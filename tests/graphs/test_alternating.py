"""Alternating steps run eagerly on the CPU: the textbook's loop, bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.compare import assert_identical
from torch import nn
from wgan import Wgan, batches

from fastgan.errors import UserError
from fastgan.graphs import capture_alternating

pytestmark = pytest.mark.filterwarnings("ignore:capture_alternating. every call runs eagerly")


@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_is_the_textbooks_loop(n_critic, clip_norm):
    ours, theirs, data = Wgan(), Wgan(), batches(4 * n_critic)
    step = ours.captured(n_critic=n_critic, clip_norm=clip_norm)
    for gan in (ours, theirs):
        torch.manual_seed(7)
        for i in range(0, len(data), n_critic):
            now = data[i : i + n_critic]
            if gan is theirs:
                wanted = gan.by_hand(now, clip_norm)
            else:
                losses = step.step(*now)
    assert losses.keys() == {"d_loss", "d_wasserstein", "g_loss"}
    assert (losses["d_loss"].item(), losses["g_loss"].item()) == wanted
    assert_identical(ours.tensors(), theirs.tensors())


def test_one_batch_serves_all_discriminator_steps():
    one, three, (rows,) = Wgan(), Wgan(), batches(1)
    for gan, now in ((one, [rows]), (three, [rows] * 3)):
        torch.manual_seed(7)
        gan.captured(n_critic=3).step(*now)
    assert_identical(one.tensors(), three.tensors())


def test_batches_may_be_structures():
    gan, (rows,) = Wgan(), batches(1)
    step = capture_alternating(
        lambda batch: gan.d_step(batch["rows"])["loss"] + 0 * batch["labels"][0].sum(),
        lambda batch: gan.g_step(batch["rows"]),
        gan.d_optimizer,
        gan.g_optimizer,
    )
    assert step.step({"rows": rows, "labels": (torch.zeros(6),)}).keys() == {"d_loss", "g_loss"}


@pytest.mark.parametrize("stale", [False, True], ids=["frozen", "frozen with an old gradient"])
def test_what_is_frozen_stays_and_what_is_unfrozen_is_trained(stale):
    """As in the textbook's loop, whose zero_grad() takes old gradients away."""
    ours, theirs, (rows,) = Wgan(), Wgan(), batches(1)
    for gan in (ours, theirs):
        if stale:
            gan.d_step(rows)["loss"].backward()
        step = gan.captured().step if gan is ours else lambda rows: theirs.by_hand([rows])
        torch.manual_seed(7)
        for frozen in (True, False, True):
            gan.d[0].requires_grad_(not frozen)
            step(rows)
    assert_identical(ours.tensors(), theirs.tensors())
    assert ours.d_optimizer.state[ours.d[0].weight]["step"] == 1


@pytest.mark.parametrize("make", [torch.optim.SparseAdam, torch.optim.SGD])
def test_sparse_gradients_are_those_of_the_textbooks_loop(make):
    gan, labels, rows = Wgan(), torch.tensor([0, 2, 2]), torch.ones(3, 5)
    ours = nn.Embedding(4, 5, sparse=True)
    theirs = copy.deepcopy(ours)
    optimizers = [make(table.parameters(), lr=0.1) for table in (ours, theirs)]
    gan.d(rows + theirs(labels)).sum().backward()
    optimizers[1].step()
    steps = lambda rows: gan.d(rows + ours(labels)).sum(), gan.g_step, optimizers[0], gan.g_optimizer
    capture_alternating(*steps).step(rows)
    assert torch.equal(ours.weight, theirs.weight)
    with pytest.raises(UserError, match="clip_norm: got sparse gradients"):
        capture_alternating(*steps, clip_norm=1.0).step(rows)


def test_steps_may_mark_the_batch():
    """As R1 does; the caller's tensor stays as it was, and n_critic steps get one each."""
    gan, (rows,) = Wgan(), batches(1)
    gan.d_step = gan.r1_step
    step = gan.captured(n_critic=3)
    for _ in range(2):
        step.step(rows)
    assert not rows.requires_grad


def test_no_gradient_flows_into_what_made_the_batch():
    gan, (rows,), encoder = Wgan(), batches(1), nn.Linear(5, 5)
    gan.d_optimizer.add_param_group({"params": encoder.parameters()})
    gan.captured(n_critic=3).step(encoder(rows))
    assert encoder.weight.grad is None


def test_optimizers_with_a_schedule_are_taken():
    """It puts a function of its own in the place of the optimizer's step."""
    gan, (rows,) = Wgan(), batches(1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(gan.d_optimizer, 10)
    gan.captured().step(rows)
    schedule.step()


def test_a_scaled_step_is_the_unscaled_one():
    """Powers of two as scales change no bit; the scale grows after two steps, of either optimizer."""
    plain, scaled, data = Wgan(fused=True), Wgan(fused=True), batches(3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    for gan, options in ((plain, {}), (scaled, dict(scaler=scaler))):
        torch.manual_seed(7)
        step = gan.captured(**options)
        for rows in data:
            step.step(rows)
    assert scaler.get_scale() == 2.0**11
    assert_identical(scaled.tensors(), plain.tensors())


def test_an_infinite_gradient_skips_that_step_only():
    gan, (rows,) = Wgan(fused=True), batches(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    bad = capture_alternating(
        lambda rows: gan.d_step(rows)["loss"] * torch.inf,
        gan.g_step,
        gan.d_optimizer,
        gan.g_optimizer,
        scaler=scaler,
    )
    before = {k: v.clone() for k, v in gan.tensors().items()}
    bad.step(rows)
    after = gan.tensors()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("d."))
    assert not torch.equal(after["g.0.weight"], before["g.0.weight"])
    assert scaler.get_scale() == 2.0**7


def test_gradients_that_share_memory_are_clipped_once():
    """The sum's gradient is one number, expanded, for both biases."""
    a, b, c = (nn.Parameter(torch.zeros(4)) for _ in range(3))
    d, g = (torch.optim.SGD(p, lr=1.0) for p in ([a, b], [c]))
    step = capture_alternating(lambda x: (a + b + x).sum(), lambda x: c.square().sum(), d, g, clip_norm=2.0)
    step.step(torch.ones(4))
    assert torch.allclose(a.detach(), torch.full((4,), -(0.5**0.5))) and torch.equal(a, b)


def test_without_a_gpu_it_says_so():
    with pytest.warns(UserWarning, match="every call runs eagerly: the parameters are on cpu"):
        step = Wgan().captured()
    assert not step.captures and "need a GPU" in step.why and step.memory == 0


def test_eager_on_request_is_silent(recwarn):
    step = Wgan().captured(capture=False)
    assert not recwarn.list and "capture=False" in step.why


def test_capturable_optimizers_work_on_the_cpu():
    gan, (rows,) = Wgan(capturable=True), batches(1)
    gan.captured().step(rows)


def test_loaded_state_of_a_run_on_a_gpu_works_on_the_cpu():
    """It says capturable=True, and so does one that was saved before the first step."""
    gan, (rows,) = Wgan(capturable=True), batches(1)
    before = copy.deepcopy(gan.d_optimizer.state_dict())
    step = gan.captured()
    step.step(rows)
    of_a_gpu = copy.deepcopy(gan.g_optimizer.state_dict())
    of_a_gpu["param_groups"][0]["capturable"] = True
    gan.d_optimizer.load_state_dict(before)
    gan.g_optimizer.load_state_dict(of_a_gpu)
    step.step(rows)
    counts = [o.state[o.param_groups[0]["params"][0]]["step"] for o in (gan.d_optimizer, gan.g_optimizer)]
    assert counts == [1, 2]


def test_steps_may_freeze_the_other_network_by_themselves():
    gan, (rows,) = Wgan(), batches(1)
    d_step, g_step = gan.d_step, gan.g_step
    gan.d_step = lambda rows: (gan.d.requires_grad_(True), d_step(rows))[1]
    gan.g_step = lambda rows: (gan.d.requires_grad_(False), g_step(rows))[1]
    step = gan.captured()
    for _ in range(2):
        step.step(rows)


def test_hooks_of_tensors_run_and_those_of_accumulation_do_not():
    gan, (rows,), ran = Wgan(), batches(1), []
    gan.d[0].weight.register_hook(lambda gradient: ran.append("tensor") or 0 * gradient)
    gan.d[0].weight.register_post_accumulate_grad_hook(lambda p: ran.append("accumulated"))
    gan.captured().step(rows)
    assert set(ran) == {"tensor"} and not gan.d[0].weight.grad.any()
