"""The CUDA engine's kernels, interpreted, follow the reference for whole steps: the parity contract.

From one state, with float32 products (``ieee``), within twice PyTorch's own distance from
float64. What the compiler makes of the same kernels is simulated in ``test_cuda_simulated.py``.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.cases import BCE, CASES, initial, later, make_data, setting
from helpers.compare import assert_identical

from fastgan import noise, parity

pytestmark = pytest.mark.interpreted

WHOLE = {
    **{name: CASES[name] for name in ("article", "default", "penalties between steps")},
    "conditional, tanh, smoothed minimax, 2 D steps": BCE
    | dict(condition=True, head="tanh", loss="minimax", label_smoothing=0.3, d_steps=2, reuse_fakes=False),
    "conditional, R1 every step": dict(condition=True, r2=0.0, penalty_every=1, ema=0.0),
    "several tiles, odd sizes": dict(latent=34, g_hidden=(33,), d_hidden=(35,), batch=34, features=33),
    "float32 data, linear head": dict(head="linear", dtype="float32", features=13, rows=5),
    "width 1, batch 1": dict(batch=1, g_hidden=(1,), d_hidden=(1,), latent=1, features=1, r1=0.0),
}


def engine_for(config, data, precision="ieee"):
    from fastgan.engines.cuda import CudaEngine

    return CudaEngine(replace(config, fused=True, device="cuda", precision=precision), data, "cpu")


def small(case):
    data = {k: case[k] for k in ("rows", "features", "dtype") if k in case}
    return setting(make_data, {k: v for k, v in case.items() if k not in data}, **data)


@pytest.mark.parametrize("name", WHOLE)
def test_parity(name):
    config, data = small(WHOLE[name])
    # What changes from step to step is in these; the others show it all in their first.
    steps = parity.STEPS if name in ("default", "penalties between steps") else (1,)
    state = later(config, data, 8) if name == "default" else initial(config, data)
    found = parity.traces(config, data, engine_for, [state], steps)
    assert [row for row in parity.judge(config, found, steps) if not row.ok] == []


@pytest.mark.parametrize(("precision", "worse"), [("tf32x3", 1), ("tf32", 2**13), ("bf16", 2**16)])
def test_other_precisions(precision, worse):
    """A step's losses, as far off as operands of 10 or 7 bits make them."""
    config, data = small(WHOLE["article"])
    state = initial(config, data)
    (t,) = parity.traces(config, data, lambda c, d: engine_for(c, d, precision), [state], (1,))
    losses = [x.metrics[0, :2].astype(np.float64) for x in (t.truth, t.engine)]
    error = np.abs(losses[0] - losses[1]).max()
    assert error <= worse * 4 * 2**-24
    assert error > 0 or worse == 1


def test_replays_pieces_and_tables_that_run_out_are_bit_equal():
    """One engine in replays of two steps, with a stand-in for graphs; one launches kernels, in pieces."""
    from helpers.graph_stand_in import StandIn

    from fastgan.engines import cuda, cuda_replay
    from fastgan.engines.cuda_launch import Launch

    config, data = small(dict(g_hidden=(4,), d_hidden=(4,), penalty_every=2, batch=3))
    state = later(config, data, 8)
    with pytest.MonkeyPatch.context() as patch:
        launch, stand_in = Launch.__call__, StandIn(patch)
        patch.setattr(Launch, "__call__", lambda self: stand_in.launch(lambda: launch(self)))
        patch.setattr(cuda, "_has_graphs", lambda device: True)
        patch.setattr(cuda_replay, "STEPS_PER_REPLAY", 2)
        through = engine_for(config, data)
        through.load(state)
        metrics = through.run(5)
        assert sorted(len(g.calls) for g in stand_in.graphs if g.replays) == [12, 22]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_TABLE", 2)
        pieces = engine_for(config, data)
        pieces.load(state)
        first = pieces.run(3)
        for scratch in (pieces.buffers.workspace, pieces.buffers.metrics):
            scratch.fill_(torch.nan)  # poison: a step writes whatever it reads
        pieces.load(pieces.export())
        second = pieces.run(2)
    np.testing.assert_array_equal(np.concatenate([first, second]), metrics)
    assert_identical(pieces.export().tensors, through.export().tensors)
    assert (pieces.export().step, pieces.export().seed) == (13, state.seed)


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
    assert "cuda: cpu, products in ieee, kernels launched one by one" in (whole / "log.txt").read_text()
    for file in ("checkpoints/step-0000000003.safetensors", "samples.npy"):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes()


# ---- the randomness contract inside of kernels


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
    wanted = [torch.nn.functional.softplus(x, threshold=1e9), torch.sigmoid(x), torch.tanh(x)]
    for mine, true in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=6e-7, atol=1e-37)
