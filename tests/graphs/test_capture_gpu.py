"""The real thing, where there is a GPU: replays equal the textbook's loop. Has not run anywhere yet."""

from __future__ import annotations

import pytest
import torch
from helpers.compare import assert_identical
from wgan import Wgan, batches

from fastgan.graphs.recording import overrides_stale_streams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: replays a CUDA graph"),
]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize("penalty", [Wgan.d_step, Wgan.r1_step], ids=["between", "at real rows"])
def test_replays_equal_the_textbooks_loop(n_critic, scaled, penalty):
    """Scaled by powers of two, too, which change no bit."""
    options = dict(capturable=True, fused=True)
    ours, theirs = (Wgan("cuda", **options) for _ in range(2))
    for gan in (ours, theirs):
        gan.d_step = penalty.__get__(gan)
    data = [rows.cuda() for rows in batches(8 * n_critic)]
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**8) if scaled else None
    step = ours.captured(n_critic=n_critic, clip_norm=0.5, scaler=scaler)
    for gan in (ours, theirs):
        torch.cuda.manual_seed(7)
        for i in range(0, len(data), n_critic):
            if gan is ours:
                losses = step.step(*data[i : i + n_critic])
                for p in (*ours.g.parameters(), *ours.d.parameters()):
                    p.grad.fill_(torch.nan)  # poison: the next replay must write every gradient
            else:
                wanted = theirs.by_hand(data[i : i + n_critic], 0.5)
    assert step.memory > 0
    assert (losses["d_loss"].item(), losses["g_loss"].item()) == pytest.approx(wanted, rel=1e-5)
    assert_identical(
        {k: v.cpu() for k, v in ours.tensors().items()}, {k: v.cpu() for k, v in theirs.tensors().items()}
    )


@pytest.mark.skipif(not overrides_stale_streams(), reason="this PyTorch cannot keep backward passes there")
def test_losses_that_were_kept_do_not_break_the_capture():
    """Their autograd nodes of the parameters remember the default stream."""
    gan = Wgan("cuda", capturable=True, fused=True)
    data = [rows.cuda() for rows in batches(6)]
    kept = [gan.d_step(data[0])["loss"], gan.g_step(data[0])]
    step = gan.captured()
    losses = [step.step(rows) for rows in data][-1]
    assert all(loss.isfinite() for loss in (*kept, *losses.values())) and step.memory > 0
