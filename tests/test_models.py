"""The two networks: shapes, names, initial values, labels, heads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fastgan import noise
from fastgan.config import Config
from fastgan.models import Discriminator, Generator, init_parameters
from fastgan.spec import ModelSpec

SPEC = ModelSpec(latent=5, features=7, classes=0, g_hidden=(6, 4), d_hidden=(3, 2), slope=0.2, head="sigmoid")
LABELLED = replace(SPEC, classes=3)


def parameters(spec: ModelSpec, network: str, seed: int = 0) -> dict[str, torch.Tensor]:
    prefix = network + "."
    values = init_parameters(spec, seed)
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def loaded(network: nn.Module, name: str, spec: ModelSpec, seed: int = 0) -> nn.Module:
    network.load_state_dict(parameters(spec, name, seed))
    return network.double()


def by_hand(values: dict[str, torch.Tensor], slope: float) -> nn.Sequential:
    """The network as anyone would write it, from a dict of weights and biases."""
    layers = []
    for i in range(len(values) // 2):
        weight, bias = values[f"layers.{i}.weight"], values[f"layers.{i}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.weight.data, linear.bias.data = weight.double(), bias.double()
        layers += [linear, nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])


def test_spec_of_the_default_options():
    spec = ModelSpec.of(Config(), features=784, classes=10)
    assert spec.g_widths == (100, 128, 128, 784)
    assert spec.d_widths == (784, 128, 128, 1)
    assert spec.classes == 0


def test_spec_of_conditional_options():
    spec = ModelSpec.of(Config(condition=True), features=784, classes=10)
    assert spec.g_widths == (110, 128, 128, 784)
    assert spec.d_widths == (794, 128, 128, 1)


def test_default_sizes():
    """784-128-128-1 and 100-128-128-784, weights and biases."""
    spec = ModelSpec.of(Config(), 784, 0)
    count = {"generator": 0, "discriminator": 0}
    for name, shape in spec.parameter_shapes():
        count[name.split(".")[0]] += math.prod(shape)
    assert count == {
        "generator": 100 * 128 + 128 + 128 * 128 + 128 + 128 * 784 + 784,
        "discriminator": 784 * 128 + 128 + 128 * 128 + 128 + 128 + 1,
    }


@pytest.mark.parametrize("spec", [SPEC, LABELLED, replace(SPEC, g_hidden=(1,), d_hidden=(1, 1, 1, 1))])
def test_names_and_shapes_agree(spec):
    shapes = dict(spec.parameter_shapes())
    assert {k: tuple(v.shape) for k, v in init_parameters(spec, 0).items()} == shapes
    built = {}
    for name, network in (("generator", Generator(spec)), ("discriminator", Discriminator(spec))):
        built |= {f"{name}.{k}": tuple(v.shape) for k, v in network.state_dict().items()}
    assert built == shapes


def test_state_dict_keys():
    keys = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "layers.2.weight"]
    assert list(Generator(SPEC).state_dict()) == [*keys, "layers.2.bias"]
    assert list(Discriminator(SPEC).state_dict()) == [*keys, "layers.2.bias"]


# ---- initial values


def test_initial_values_are_a_pure_function_of_the_seed():
    first, again, other = (init_parameters(SPEC, seed) for seed in (4, 4, 5))
    torch.manual_seed(123)
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


def test_initial_values_stand_where_the_docstring_says():
    values = init_parameters(SPEC, 8)
    for network, name in enumerate(("generator", "discriminator")):
        for layer in range(3):
            weight, bias = values[f"{name}.layers.{layer}.weight"], values[f"{name}.layers.{layer}.bias"]
            outputs, inputs = weight.shape
            for r in range(outputs):
                row = (2 * layer + network) * 2**32 + r
                u = (noise.words(8, 3, row, 1, inputs + 1)[0] >> 8) / 2**24
                expected = (2 * u - 1) / math.sqrt(inputs)
                assert np.allclose(weight[r].numpy(), expected[:-1], rtol=2e-7, atol=0)
                assert np.allclose(bias[r].item(), expected[-1], rtol=2e-7, atol=0)


def test_initial_distribution_is_that_of_nn_linear():
    spec = ModelSpec.of(Config(), 784, 0)
    for name, value in init_parameters(spec, 1).items():
        inputs = dict(spec.parameter_shapes())[name.replace("bias", "weight")][1]
        bound = 1 / math.sqrt(inputs)
        assert value.dtype == torch.float32
        assert value.abs().max() <= bound
        if value.numel() > 1000:
            x, n = value.double().flatten() / bound, value.numel()
            assert x.abs().max() > 1 - 20 / n
            assert abs(x.mean()) < 4 / math.sqrt(3 * n)
            assert abs(x.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)


def test_initial_values_do_not_repeat():
    spec = replace(SPEC, latent=40, features=40, g_hidden=(40, 40), d_hidden=(40, 40))
    values = init_parameters(spec, 0).values()
    numbers = np.concatenate([v.numpy().ravel() for v in values])
    assert len(np.unique(numbers)) > 0.99 * len(numbers)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, g_hidden=(1,), d_hidden=(1,), features=1)])
def test_initial_values_share_no_memory(spec):
    values = list(init_parameters(spec, 0).values())
    assert all(v.is_contiguous() for v in values)
    assert len({v.untyped_storage().data_ptr() for v in values}) == len(values)


# ---- forward


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("hidden", [(1,), (6, 4), (5, 3, 2, 1, 4)])
def test_forward_is_the_plain_network(slope, hidden):
    spec = replace(SPEC, slope=slope, g_hidden=hidden, d_hidden=hidden, head="linear")
    z, x = torch.randn(9, 5, dtype=torch.float64), torch.randn(9, 7, dtype=torch.float64)
    generator = loaded(Generator(spec), "generator", spec)
    discriminator = loaded(Discriminator(spec), "discriminator", spec)
    torch.testing.assert_close(generator(z), by_hand(parameters(spec, "generator"), slope)(z))
    logits = by_hand(parameters(spec, "discriminator"), slope)(x)[:, 0]
    torch.testing.assert_close(discriminator(x), logits)


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
@pytest.mark.parametrize("spec", [SPEC, LABELLED])
def test_shapes(rows, spec):
    labels = torch.arange(rows) % 3 if spec.classes else None
    rows_made = Generator(spec)(torch.zeros(rows, 5), labels)
    assert rows_made.shape == (rows, 7)
    discriminator = Discriminator(spec)
    assert discriminator(rows_made, labels).shape == (rows,)
    assert discriminator.probability(rows_made, labels).shape == (rows,)


def test_heads():
    z = torch.randn(20, 5, dtype=torch.float64)
    made = {}
    for head in ("sigmoid", "tanh", "linear"):
        spec = replace(SPEC, head=head)
        made[head] = loaded(Generator(spec), "generator", spec)(z)
    torch.testing.assert_close(made["sigmoid"], 1 / (1 + torch.exp(-made["linear"])))
    torch.testing.assert_close(made["tanh"], torch.tanh(made["linear"]))


def test_probability_is_the_sigmoid_of_the_logit():
    discriminator, x = loaded(Discriminator(SPEC), "discriminator", SPEC), torch.rand(20, 7).double()
    torch.testing.assert_close(discriminator.probability(x), 1 / (1 + torch.exp(-discriminator(x))))


def test_labels_are_appended_one_hot():
    labels = torch.tensor([2, 0, 1, 2])
    one_hot = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    z, x = torch.randn(4, 5, dtype=torch.float64), torch.rand(4, 7, dtype=torch.float64)
    spec = replace(LABELLED, head="linear")
    generator = loaded(Generator(spec), "generator", spec)
    discriminator = loaded(Discriminator(spec), "discriminator", spec)
    expected = by_hand(parameters(spec, "generator"), 0.2)(torch.cat([z, one_hot], 1))
    torch.testing.assert_close(generator(z, labels), expected)
    expected = by_hand(parameters(spec, "discriminator"), 0.2)(torch.cat([x, one_hot], 1))
    torch.testing.assert_close(discriminator(x, labels), expected[:, 0])


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_missing_labels_are_named(network):
    with pytest.raises(ValueError, match=r"labels: got None; wanted integers \[B\] below 3"):
        network(LABELLED)(torch.zeros(2, 5))
