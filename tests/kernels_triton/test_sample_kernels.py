"""The sampler's kernels, interpreted: the contract's noise, layers against float64, bytes as decoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastgan import noise
from fastgan.data.schema import Schema
from fastgan.errors import UserError

pytestmark = pytest.mark.interpreted

SEED = 2**62 + 12345
ROWS = np.array([0, 1, 2**32 - 1, 2**32, 2**62 + 1, 7, 7, *range(90, 120)], dtype=np.int64)
HEADS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda x: x}
HEADS["leaky"] = lambda x: torch.nn.functional.leaky_relu(x, 0.2)


def noise_faults(sample, latent: int, classes: int) -> list[str]:
    """Run the noise kernel under the sanitizer; return what is wrong."""
    from helpers.sanitizer import Sanitizer

    index, seed = torch.from_numpy(ROWS), torch.tensor([SEED])
    labels = torch.from_numpy(ROWS % classes) if classes else None
    z = torch.full((len(ROWS), latent + classes), torch.nan)
    inputs = {"index": index, "seed": seed} | ({} if labels is None else {"labels": labels})
    with Sanitizer(inputs, {"z": z}) as found:
        sample.sample_noise(index, labels, seed, z, latent, int(noise.Stream.SAMPLES))
    wanted = noise.normal_at(SEED, noise.Stream.SAMPLES, ROWS, latent)
    if not np.abs(z[:, :latent].numpy() - wanted).max() < 1e-6:
        found.append("other noise")
    if classes and not torch.equal(z[:, latent:], torch.nn.functional.one_hot(labels, classes).float()):
        found.append("other labels")
    return found


def layer_faults(sample, rows: int, inputs: int, outputs: int, head: str, dtype: torch.dtype) -> list[str]:
    """Run the layer kernel under the sanitizer; return what is wrong."""
    from helpers.sanitizer import Sanitizer

    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    affine = Schema("array", (outputs,), "uint8").affine(head)
    y = torch.full((rows, outputs), 77, dtype=dtype)
    with Sanitizer({"x": x, "weight": weight, "bias": bias}, {"y": y}) as found:
        sample.sample_layer(x, weight, bias, y, head, 0.2, affine)
    pytorch = HEADS[head](x @ weight.T + bias)
    exact = HEADS[head](x.double() @ weight.double().T + bias.double())
    if dtype == torch.float32:
        allowed = 2 * (pytorch - exact).abs().max() + 1e-6
        return found if ((y - exact).abs() <= allowed).all() else [*found, "other values"]
    stored = ((exact - affine[1]) / affine[0]).clamp(0, 255)
    tie = (stored - stored.floor() - 0.5).abs() < 1e-3
    wanted = torch.from_numpy(Schema("array", (outputs,), "uint8").decode(exact.float().numpy(), head))
    return found if (y == wanted)[~tie].all() and tie.float().mean() < 0.1 else [*found, "other bytes"]


@pytest.mark.parametrize(("latent", "classes"), [(1, 0), (63, 2), (64, 0), (100, 10), (3, 70)])
def test_noise(latent, classes):
    from fastgan.kernels.triton import sample

    assert noise_faults(sample, latent, classes) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 17, 64), (65, 30, 67)])
def test_layers(shape, head, dtype):
    from fastgan.kernels.triton import sample

    assert layer_faults(sample, *shape, head, dtype) == []


def test_bytes_of_odd_values():
    from fastgan.kernels.triton import sample

    odd = [np.nan, np.inf, -np.inf, -0.4, 0.5, 1.5, 2.5, 254.5, 254.6, 255.4, 256.0, 3e9, -3e9]
    x, y = torch.tensor(odd)[:, None], torch.full((len(odd), 1), 77, dtype=torch.uint8)
    one, zero = torch.ones(1, 1), torch.zeros(1)
    sample.sample_layer(x, one, zero, y, "linear")
    wanted = [0, 255, 0, 0, 0, 2, 2, 254, 255, 255, 255, 255, 0]
    assert y[:, 0].tolist() == wanted


def test_no_rows():
    from fastgan.kernels.triton import sample

    z, none = torch.empty(0, 5), torch.empty(0, dtype=torch.int64)
    sample.sample_noise(none, none, torch.tensor([1]), z, 3, 4)
    sample.sample_layer(z, torch.ones(2, 5), torch.ones(2), torch.empty(0, 2), "leaky", 0.2)


@pytest.mark.parametrize("wrong", ["index", "labels", "seed", "z", "x", "weight", "bias", "y"])
def test_wrong_tensors_are_named(wrong):
    from fastgan.kernels.triton import sample

    long = dict(index=torch.zeros(4).long(), labels=torch.zeros(4).long(), seed=torch.zeros(1).long())
    if wrong in (*long, "z"):
        tensors = long | dict(z=torch.empty(4, 5))
        tensors[wrong] = tensors[wrong].int() if wrong != "z" else torch.empty(5, 4).T
        with pytest.raises(UserError, match=f"{wrong}: got torch"):
            sample.sample_noise(*tensors.values(), 3, 4)
        return
    tensors = dict(x=torch.empty(4, 5), weight=torch.empty(3, 5), bias=torch.empty(3), y=torch.empty(4, 3))
    tensors[wrong] = torch.empty(2, 7).half()
    with pytest.raises(UserError, match=f"{wrong}: got torch|weight: got"):
        sample.sample_layer(*tensors.values(), "leaky")


NOISE = [
    ("tl.program_id(0) // columns * BLOCK_R", "tl.program_id(0) % columns * BLOCK_R", 2),
    ("number = tl.load(index_ptr + r, mask=r < rows, other=0)", "number = tl.load(index_ptr) + r", 1),
    ("labels_ptr + r, mask=r < rows", "labels_ptr + r, mask=r <= rows", 1),
    ("noise_tile(tl.load(seed_ptr), stream", "noise_tile(tl.load(seed_ptr) + 1, stream", 1),
    ("noise_tile(tl.load(seed_ptr), stream", "noise_tile(tl.load(seed_ptr), 5", 1),
    ("number, label, start, LATENT", "number, label, 0, LATENT", 1),
    ("store_tile(z_ptr, z, r, rows, I,", "store_tile(z_ptr, z, r, rows, LATENT,", 1),
]
LAYER = [
    ("total = product(x, load", "total += 0.0 * product(x, load", 1),
    ("for start in tl.range(0, I, BLOCK_I):", "for start in tl.range(BLOCK_I, I, BLOCK_I):", 1),
    ("activate(total, bias_ptr, slope,", "activate(total, bias_ptr, 0.21,", 1),
    ("round_to_byte((y - shift) * factor)", "round_to_byte((y + shift) * factor)", 1),
    ("round_to_byte((y - shift) * factor)", "round_to_byte(y * factor - shift)", 1),
    ("(x + 12582912.0) - 12582912.0", "x", 1),
    ("store_tile(y_ptr, y, r, rows, O, o, O)", "store_tile(y_ptr, y, r, rows - 1, O, o, O)", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "count"), NOISE + LAYER)
def test_planted_mistakes_are_found(old, new, count):
    from fastgan.kernels.triton import sample
    from helpers.mutants import mutant

    changed = mutant(sample, old, new, count)
    layers = [("tanh", torch.uint8), ("leaky", torch.float32)]
    assert noise_faults(changed, 63, 2) or any(layer_faults(changed, 65, 30, 67, *kind) for kind in layers)
