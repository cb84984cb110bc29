"""The CUDA engine captures its steps: what replays ask for, what a warm-up leaves, new options, the memory.

Kernels do not run here. A launch, where it would run, is noted, and adds 1 to all that its kernel writes of
the state; so what a warm-up or a stale graph does cannot hide.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.cases import later, make_data, setting
from helpers.compare import assert_identical
from helpers.graph_stand_in import StandIn
from helpers.mutants import mutant

pytest.importorskip("triton", reason="no Triton")

from fastgan.engines import cuda
from fastgan.engines.cuda_launch import Launch
from fastgan.engines.protocol import METRICS
from fastgan.errors import UserError
from fastgan.graphs import Audit

WRITTEN = ("p_ptr", "m_ptr", "v_ptr", "average_ptr", "clock_ptr", "metrics_ptr")


class World:
    """Makes engines that capture, on the CPU, and notes the launches that run."""

    def __init__(self, monkeypatch):
        self.stand_in, self.ran, self.monkeypatch = StandIn(monkeypatch), [], monkeypatch
        monkeypatch.setattr(Launch, "__call__", lambda launch: self.stand_in.launch(lambda: self.run(launch)))

    def run(self, launch):
        self.ran.append(launch)
        for name in WRITTEN:
            if launch.name == "step_update_kernel" and launch.arguments[name] is not None:
                launch.arguments[name].add_(1)

    def engine(self, module=cuda, **options):
        self.monkeypatch.setattr(module, "interpreted", lambda: True)
        self.monkeypatch.setattr(module, "_has_graphs", lambda device: True)
        config, data = setting(make_data, dict(fused=True, device="cuda", steps=100) | options)
        engine = module.CudaEngine(config, data, "cpu")
        engine.load(later(config, data, 8))
        return engine

    def asked(self, engine, steps):
        """Run steps and return the launches that they were."""
        self.ran.clear()
        engine.run(steps)
        return list(self.ran)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def numbers(launches):
    return [
        (launch.name, launch.grid, {k: v for k, v in launch.arguments.items() if not torch.is_tensor(v)})
        for launch in launches
    ]


@pytest.mark.parametrize("design", ["layered", "row-fused"])
def test_replays_are_the_launches_of_these_steps(world, design):
    engine = world.engine(design=design)
    asked = world.asked(engine, 21)
    wanted = [launch for step in range(8, 29) for launch in engine.launches(step)]
    assert all(a is b for a, b in zip(asked, wanted, strict=True))
    assert engine.step == 29 and max(g.replays for g in world.stand_in.graphs) > 0
    assert any(len(g.calls) == len(asked) - sum(len(engine.launches(s)) for s in range(24, 29))
               for g in world.stand_in.graphs)  # fmt: skip


def test_loading_captures_and_leaves_the_state_as_it_is(world):
    engine = world.engine()
    assert world.ran and len(world.stand_in.graphs) == 2  # a block of steps, and the first one by itself
    config, data = engine.config, engine._data
    assert_identical(engine.export().tensors, later(config, data, 8).tensors)
    assert engine.buffers.clock.tolist() == [engine.seed, 8, 8, 50]
    assert not engine.buffers.metrics.any()


def test_steps_need_nothing_from_the_host_but_replays(world):
    """No buffer is written between load and export, but by launches: rates and batches follow from those."""
    engine = world.engine()
    engine.run(1)  # what was not captured yet
    world.run = lambda launch: None
    before = {k: v._version for k, v in vars(engine.buffers).items() if v is not None}
    with Audit() as audit:
        engine.run(1100)
    assert before == {k: v._version for k, v in vars(engine.buffers).items() if v is not None}
    assert set(audit.ops) <= {"aten::detach", "aten::_to_copy"}  # reading the metrics


STATE = ["parameters", "exp_avg", "exp_avg_sq", "average", "clock", "metrics"]


@pytest.mark.parametrize("buffer", STATE)
def test_a_warm_up_that_leaves_a_trace_is_found(world, buffer):
    """The plant: this buffer is not restored."""
    line, without = (", ".join(f"b.{n}" for n in STATE if n != left_out) for left_out in (None, buffer))
    faulty = world.engine(mutant(cuda, f"({line})", f"({without})")).buffers
    right = world.engine().buffers
    assert not torch.equal(getattr(faulty, buffer), getattr(right, buffer))


CHANGES = {
    "shapes": dict(batch=9),
    "options": dict(beta1=0.25, eps=1e-5, loss="bce"),
    "penalties": dict(penalty_every=3),
    "discriminator steps": dict(d_steps=2),
    "precision": dict(precision="bf16"),
    "design": dict(design="layered"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_options_are_captured_anew(world, change):
    engine = world.engine()
    engine.run(2)
    before = engine.export()
    engine.config = replace(engine.config, **CHANGES[change])
    assert_identical(engine.export().tensors, before.tensors)
    assert (engine.step, engine.seed) == (before.step, before.seed)
    asked = world.asked(engine, 20)
    assert asked == [launch for step in range(10, 30) for launch in engine.launches(step)]
    fresh = world.engine(**CHANGES[change])
    fresh.load(before)
    assert numbers(asked) == numbers(world.asked(fresh, 20))


@pytest.mark.parametrize("change", [c for c in CHANGES if c != "discriminator steps"])  # that fails loudly
def test_a_stale_graph_is_found(world, change):
    """The plant: options are taken, and nothing is made anew."""
    line = "        self._build(config)\n        self.load(state)\n"
    engine = world.engine(mutant(cuda, line, "        self._config = config\n"))
    engine.config = replace(engine.config, **CHANGES[change])
    asked, fresh = world.asked(engine, 20), world.engine(**CHANGES[change])
    assert numbers(asked) != numbers(world.asked(fresh, 20))


def test_options_of_another_model_are_refused_and_change_nothing(world):
    engine = world.engine()
    config, buffers = engine.config, engine.buffers
    with pytest.raises(UserError, match="config: "):
        engine.config = replace(config, latent=4)
    assert engine.config is config and engine.buffers is buffers


def test_memory_is_told(world):
    engine = world.engine()
    assert engine.memory["graphs"] == 100 * len(world.stand_in.graphs) == 200
    assert engine.memory["buffers"] > 4 * 3 * engine.layout.parameters
    assert (
        "row-fused kernels, products in tf32, 16 steps a graph; " in engine.describe()
        and "MB in graphs" in engine.describe()
    )


def test_without_graphs(world):
    engine = world.engine(graph=False)
    asked = world.asked(engine, 3)
    assert world.stand_in.graphs == [] and world.stand_in.eager == len(asked)
    assert "kernels launched one by one" in engine.describe()


def test_a_capture_that_fails_leaves_the_state(world, monkeypatch):
    def launch(self):
        if self.name == "step_head_kernel" and world.stand_in._capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        world.stand_in.launch(lambda: None)

    engine = world.engine(graph=False, design="layered")
    monkeypatch.setattr(Launch, "__call__", launch)
    before = engine.export()
    with pytest.raises(UserError, match=r"--device cuda: .* step_head_kernel: operation not .*--no-graph"):
        engine.config = replace(engine.config, graph=True)
    assert_identical(engine.export().tensors, before.tensors)


def test_stopping_returns_the_steps_that_were_asked_for(world):
    engine = world.engine()
    replay = engine._replays.run

    def stopping(step, most):
        engine.stop()
        return replay(step, most)

    engine._replays.run = stopping
    metrics = engine.run(50)
    assert metrics.shape == (16, len(METRICS)) and metrics.dtype == np.float32
    assert engine.step == engine.export().step == 24
