"""The native engine's profile: what each operation took, and that measuring changes nothing."""

from __future__ import annotations

import pytest
from helpers.cases import CASES, setting
from helpers.parity import native

from fastgan.cost import estimate
from fastgan.models import Generator
from fastgan.state import State

STEPS = 6
WIDE = dict(g_hidden=(40, 30), d_hidden=(30, 20), batch=20, penalty_every=2, reuse_fakes=False)


def profiled(engine, state: State) -> list[tuple]:
    engine.load(state)
    engine._native.profile(True)
    engine.run(STEPS)
    found = engine._native.profiled()
    engine._native.profile(False)
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["default", "article"])
def test_flops_are_those_of_the_step(make_data, name, threads):
    config, data = setting(make_data, CASES[name] | WIDE)
    engine = native(config, data, threads)
    found = profiled(engine, State.initial(engine.spec, 0))
    wanted = estimate(engine.config, engine.spec, 0).flops * STEPS
    logits = sum(3 * 2 * rows * WIDE["d_hidden"][-1] for rows in (2 * 20, 20)) * STEPS  # no products here
    assert wanted - 3 * logits < sum(flops for *_, flops in found) < wanted
    assert all(seconds > 0 for *_, seconds, _ in found)
    updates = {update for update, *_ in found}
    assert updates == ({"D", "D with penalty", "G"} if config.r1 or config.r2 else {"D", "G"})


def test_measuring_changes_no_bit(make_data):
    config, data = setting(make_data, CASES["default"])
    engine = native(config, data)
    state = State.initial(engine.spec, 0)
    profiled(engine, state)
    measured = engine.export()
    engine.load(state)
    engine.run(STEPS)
    for name, tensor in engine.export().tensors.items():
        assert tensor.equal(measured.tensors[name]), name
    assert all(seconds == 0 for *_, seconds, _ in engine._native.profiled())


def test_an_exported_generator_is_an_ordinary_module(make_data):
    config, data = setting(make_data, CASES["default"])
    engine = native(config, data)
    engine.load(State.initial(engine.spec, 0))
    engine.run(STEPS)
    state = engine.export()
    generator = Generator(engine.spec)
    generator.load_state_dict(state.part("generator"))
    for name, parameter in generator.named_parameters():
        assert parameter.equal(state.tensors[f"generator.{name}"]), name
