"""The state of a run: what is in it at the start, its parts, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from fastgan.errors import UserError
from fastgan.models import Discriminator, Generator, init_parameters
from fastgan.spec import ModelSpec
from fastgan.state import State

SPEC = ModelSpec(latent=5, features=7, classes=2, g_hidden=(6, 4), d_hidden=(3,), slope=0.2, head="tanh")


@pytest.fixture
def state() -> State:
    return State.initial(SPEC, seed=3)


def test_initial(state):
    assert (state.seed, state.step) == (3, 0)
    parameters = init_parameters(SPEC, 3)
    generators = sum(name.startswith("generator.") for name in parameters)
    assert len(state.tensors) == 3 * len(parameters) + generators
    for name, value in parameters.items():
        assert torch.equal(state.tensors[name], value)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert state.tensors[f"{moment}.{name}"].shape == value.shape
            assert not state.tensors[f"{moment}.{name}"].any()
        if name.startswith("generator."):
            assert torch.equal(state.tensors[name.replace("generator", "ema")], value)
    state.check(SPEC)


def test_tensors_are_independent(state):
    pointers = [t.untyped_storage().data_ptr() for t in state.tensors.values()]
    assert len(set(pointers)) == len(pointers)


def test_parts_load_into_the_networks(state):
    state.tensors["ema.layers.0.bias"] += 1
    generator, average, discriminator = Generator(SPEC), Generator(SPEC), Discriminator(SPEC)
    generator.load_state_dict(state.part("generator"))
    average.load_state_dict(state.part("ema"))
    discriminator.load_state_dict(state.part("discriminator"))
    assert torch.equal(average.layers[0].bias, generator.layers[0].bias + 1)
    assert set(state.part("exp_avg")) == set(init_parameters(SPEC, 0))


def test_a_part_is_a_whole_name(state):
    """``exp_avg`` must not also catch ``exp_avg_sq``, nor ``generator`` the moments of the generator."""
    assert not any(name.startswith("_sq") for name in state.part("exp_avg"))
    assert list(state.part("generator")) == list(Generator(SPEC).state_dict())
    assert state.part("no such part") == {}


@pytest.mark.parametrize("name", ["generator.layers.1.weight", "exp_avg_sq.discriminator.layers.0.bias"])
def test_a_missing_tensor_is_named(state, name):
    del state.tensors[name]
    with pytest.raises(UserError, match=f"^the file: {name}: got no such tensor"):
        state.check(SPEC, "the file")


@pytest.mark.parametrize("name", ["generator.layers.3.weight", "ema.layers.9.bias", "surplus"])
def test_a_surplus_tensor_is_named(state, name):
    state.tensors[name] = torch.zeros(1)
    with pytest.raises(UserError, match=f"^state: {name}: got a tensor that the model does not have"):
        state.check(SPEC)


@pytest.mark.parametrize(
    "name", ["discriminator.layers.0.weight", "ema.layers.0.bias", "exp_avg.generator.layers.2.bias"]
)
def test_a_misshapen_tensor_is_named_with_both_shapes(state, name):
    wanted = tuple(state.tensors[name].shape)
    state.tensors[name] = torch.zeros(2, 2, 2)
    with pytest.raises(UserError) as caught:
        state.check(SPEC)
    assert str(caught.value) == f"state: {name}: got shape (2, 2, 2); wanted shape {wanted}"
