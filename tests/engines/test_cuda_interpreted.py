"""The CUDA engine's kernels, interpreted, follow the reference for whole steps: the parity contract.

From one state, with float32 products (``ieee``), within twice PyTorch's own distance from
float64. What the compiler makes of the same kernels is simulated in ``test_cuda_simulated.py``.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from importlib import import_module
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.cases import BCE, initial, later, make_data, setting
from helpers.compare import assert_identical
from helpers.interpreted_steps import DESIGNS, WHOLE, breaches, engine_for, small

from fastgan import noise, parity
from fastgan.config import preset
from fastgan.errors import UserError

pytestmark = [pytest.mark.interpreted, pytest.mark.slow]


def test_bfloat16_is_refused_where_the_interpreter_gets_it_wrong():
    config, data = small(WHOLE["width 1, batch 1"])
    launch = import_module("fastgan.kernels.triton.launch")
    refused = pytest.raises(UserError, match="got bfloat16 under TRITON_INTERPRET=1")
    with mock.patch.object(launch, "INTERPRETS_BFLOAT16", False), refused:
        engine_for(config, data, "bf16")


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", WHOLE)
def test_parity(name, design):
    config, data = small(WHOLE[name])
    # What changes from step to step is in these; the others show it all in their first.
    steps = parity.STEPS if name in ("default", "penalties between steps") else (1,)
    state = later(config, data, 8) if name == "default" else initial(config, data)
    assert breaches(config, data, state, steps, design) == []


TAIL = dict(g_hidden=(5,), d_hidden=(6, 3), batch=17)
FAULTS = {  # planted in the list of the row-fused design's launches
    "the tail of a batch has no program": (TAIL, "-(-self.c.batch //", "(self.c.batch //"),
    "losses of no launch": (TAIL, "partial_ptr=self._partial", "partial_ptr=torch.zeros_like(self._partial)"),
    "penalties of no launch": (TAIL, "=self._penalty,", "=torch.zeros_like(self._penalty),"),
    "the update goes first": (TAIL, "launches.append(self._update(1,", "launches.insert(0, self._update(1,"),
    "the penalty's rows do not count": (TAIL, "(4 if penalty else 2)", "2"),
    "labels of another batch": (
        WHOLE["conditional, tanh, smoothed minimax, 2 D steps"], "substep=self.c.d_steps - 1", "substep=0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_planted_in_the_row_fused_design_are_found(fault):
    from helpers.mutants import mutant

    from fastgan.engines import cuda_design, cuda_rows

    case, old, new = FAULTS[fault]
    config, data = small(case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cuda_design.DESIGNS, "row-fused", mutant(cuda_rows, old, new).RowFused)
        assert breaches(config, data, later(config, data, 8), (1,), "row-fused") != []


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("precision", "worse"), [("tf32x3", 1), ("tf32", 2**13), ("bf16", 2**16)])
def test_other_precisions(precision, worse, design):
    """A step's losses, as far off as operands of 10 or 7 bits make them."""
    config, data = small(WHOLE["article"])
    state = initial(config, data)
    (t,) = parity.traces(config, data, lambda c, d: engine_for(c, d, precision, design), [state], (1,))
    losses = [x.metrics[0, :2].astype(np.float64) for x in (t.truth, t.engine)]
    error = np.abs(losses[0] - losses[1]).max()
    assert error <= worse * 4 * 2**-24
    assert error > 0 or worse == 1


def replays_of_two_steps(patch):
    """Have engines capture blocks of two steps, with a stand-in for graphs, which is returned."""
    from helpers.graph_stand_in import StandIn

    from fastgan.engines import cuda, cuda_replay
    from fastgan.engines.cuda_launch import Launch

    launch, stand_in = Launch.__call__, StandIn(patch)
    patch.setattr(Launch, "__call__", lambda self: stand_in.launch(lambda: launch(self)))
    patch.setattr(cuda, "_has_graphs", lambda device: True)
    patch.setattr(cuda_replay, "STEPS_PER_REPLAY", 2)
    return stand_in


@pytest.mark.parametrize(("design", "counts"), [("layered", [12, 22]), ("row-fused", [4, 8])])
def test_replays_pieces_slots_that_run_out_and_streamed_rows_are_bit_equal(design, counts):
    """One engine in replays of two steps, with a stand-in for graphs; one launches kernels, in pieces, and
    its rows come from the host, those of two steps at a time."""
    from fastgan.engines import cuda, cuda_data

    config, data = small(dict(g_hidden=(4,), d_hidden=(4,), penalty_every=2, batch=3))
    state = later(config, data, 8)
    with pytest.MonkeyPatch.context() as patch:
        stand_in = replays_of_two_steps(patch)
        through = engine_for(config, data, design=design)
        through.load(state)
        metrics = through.run(5)
        assert sorted(len(g.calls) for g in stand_in.graphs if g.replays) == counts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_SLOTS", 2)
        patch.setattr(cuda_data, "_WINDOW_BYTES", 2 * config.batch * data.rows.shape[1])
        pieces = engine_for(replace(config, fused=True, device="cuda", data_on="host"), data, design=design)
        assert pieces.buffers.data.shape == (12, 9)
        pieces.load(state)
        first = pieces.run(3)
        for scratch in (pieces.buffers.workspace, pieces.buffers.metrics):
            scratch.fill_(torch.nan)  # poison: a step writes whatever it reads
        pieces.load(pieces.export())
        second = pieces.run(2)
    np.testing.assert_array_equal(np.concatenate([first, second]), metrics)
    assert_identical(pieces.export().tensors, through.export().tensors)
    assert (pieces.export().step, pieces.export().seed) == (13, state.seed)


@pytest.mark.parametrize("design", DESIGNS)
def test_streamed_rows_with_labels_in_replays(design):
    """A block of two steps that begins in one window and ends in the next."""
    case = BCE | dict(condition=True, d_steps=2, g_hidden=(4,), d_hidden=(4,), batch=3, latent=1)
    config, data = small(case | dict(dtype="float32"))
    config = replace(config, fused=True, device="cuda")
    state, results = later(config, data, 2**33 + 7), []  # positions that need 64 bits
    for place in ("device", "host"):
        with pytest.MonkeyPatch.context() as patch:
            replays_of_two_steps(patch)
            patch.setattr("fastgan.engines.cuda_data._WINDOW_BYTES", 2 * 6 * 4 * 9)
            engine = engine_for(replace(config, data_on=place), data, design=design)
            engine.load(state)
            assert ("rows from host memory for 2 steps" in engine.describe()) == (place == "host")
            results.append((engine.run(2), engine.export().tensors))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert_identical(results[1][1], results[0][1])


def test_load_and_export_copy():
    config, data = small({})
    state = later(config, data)
    untouched = {k: v.clone() for k, v in state.tensors.items()}
    engine = engine_for(config, data)
    engine.load(state)
    before = engine.export()
    assert_identical(before.tensors, untouched)
    engine.run(1)
    assert_identical(state.tensors, untouched)
    assert_identical(before.tensors, untouched)


def test_the_train_command_stops_and_goes_on(tmp_path):
    """As ``--fused --device cuda`` would, but for the device: steps, statistics, checkpoints, resuming."""
    from fastgan import engines, train

    np.save(tmp_path / "rows.npy", make_data(8, 5).rows)
    tiny = "--g-hidden 3 --d-hidden 3 --latent 2 --batch 2 --r1 0 --r2 0 --log-every 1 --checkpoint-every 1"
    arguments = f"--data {tmp_path}/rows.npy {tiny} --fused --device cuda --precision ieee --steps 3".split()

    class StopsAfterOne:
        """An engine that a signal stops in its second call."""

        def __init__(self, engine):
            self.engine, self.calls = engine, 0

        def __getattr__(self, name):
            return getattr(self.engine, name)

        def run(self, steps):
            self.calls += 1
            if self.calls == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return self.engine.run(1)

    def make(config, data):
        return (
            StopsAfterOne(engine_for(config, data, config.precision)) if stops else engine_for(config, data)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "create", make)
        stops = False  # which make() looks up
        assert train.main([*arguments, "--out", f"{tmp_path}/whole"]) == 0
        stops = True
        assert train.main([*arguments, "--out", f"{tmp_path}/stopped"]) == 128 + signal.SIGTERM
        stops = False
        (stopped,) = (tmp_path / "stopped").glob("0*")
        assert train.main(["--resume", str(stopped)]) == 0
    (whole,) = (tmp_path / "whole").glob("0*")
    assert (
        "cuda: cpu, layered kernels, products in ieee, kernels launched one by one"
        in (whole / "log.txt").read_text()
    )
    for file in ("checkpoints/step-0000000003.safetensors", "samples.npy"):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes()


# ---- inside of kernels: schedules, the randomness contract, functions

SCHEDULES = {
    "default": {},
    "article": dict(preset("article"), d_steps=3),
    "a fraction of a step": dict(steps=1237, decay_from=0.3, decay_to=0.0, d_steps=2),
    "cosine": dict(g_schedule="cosine", d_schedule="cosine", steps=777, decay_from=0.1),
    "very long": dict(steps=2**40, decay_from=0.999999, beta1=0.0, beta2=0.9999999, ema_warmup=1.0),
    "a single step": dict(steps=1, decay_from=1.0, g_schedule="cosine"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_follow_the_schedules(name):
    """On the device as ``Config`` has them, to a few roundings, at any step."""
    import random_kernel

    config, data = setting(make_data, dict(steps=10_000) | SCHEDULES[name])
    engine = engine_for(config, data)
    engine.load(initial(config, data))
    c, b, n = config, engine.buffers, config.steps
    steps = sorted({*range(4), *(n * i // 19 for i in range(20)), max(n - 1, 0), n + 5})
    for which in range(c.d_steps):
        for trains_g in (False, True):
            schedule, lr = (c.g_schedule, c.g_lr) if trains_g else (c.d_schedule, c.d_lr)
            place = (1, 0) if trains_g else (c.d_steps, which)
            got = random_kernel.rates(
                b.clock, b.schedule, torch.tensor(steps), *place, trains_g, schedule == "cosine"
            )
            for row, step in zip(got, steps, strict=True):
                t = step * place[0] + place[1] + 1
                size = lr * c.lr_factor(schedule, step) / (1.0 - c.beta1**t)
                wanted = [size, -np.expm1(t * np.log(c.beta2)), 1.0 - c.ema_decay(step)]
                wanted[1] **= -0.5
                np.testing.assert_allclose(row, wanted, rtol=2e-6, atol=1e-7 * lr, err_msg=f"step {step}")


@pytest.mark.parametrize(("seed", "row", "size"), [(3, 0, 37), (2**63 - 5, 2**33 + 5, 10007), (7, 2**40, 1)])
def test_noise_and_permutation(seed, row, size):
    import random_kernel

    normals, index = random_kernel.run(seed, int(noise.Stream.G_NOISE), row, size)
    np.testing.assert_array_equal(index, noise.epoch_index(seed, row, len(index), size))
    wanted = noise.normal(seed, noise.Stream.G_NOISE, row, *normals.shape)
    np.testing.assert_allclose(normals, wanted, rtol=4e-7, atol=1e-7)


def test_elementary_functions():
    import random_kernel

    x = torch.cat([torch.linspace(-90, 90, 2000), torch.logspace(-30, 1, 48)]).double()
    got = random_kernel.functions(x.float())
    x = x.float().double()
    wanted = [torch.nn.functional.softplus(x, threshold=1e9), x.sigmoid(), x.tanh(), torch.expm1(-x.abs())]
    for mine, true in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=6e-7, atol=1e-37)
