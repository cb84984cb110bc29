"""The native randomness is that of fastgan.noise, integers bit-equal, normals to rounding; rows from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastgan.kernels.cpu import native
from helpers.generators import generator_of
from helpers.parity import ISAS
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan import noise
from fastgan.data.schema import Schema
from fastgan.engines.native import native_spec
from fastgan.models import Generator
from fastgan.sampler_cpu import native_sampler
from fastgan.spec import ModelSpec

SEEDS = st.integers(0, 2**64 - 1)
STREAMS = st.integers(0, 2**32 - 1)
# Near multiples of 2**32, where the row's low word carries into the high one.
ROWS = st.one_of(
    st.integers(0, 2**63 - 100),
    st.builds(lambda n, d: max(0, (n << 32) + d), st.integers(0, 2**31 - 1), st.integers(-50, 50)),
)
COUNTS, COLUMNS = st.integers(0, 40), st.integers(1, 70)


@pytest.fixture(params=ISAS, scope="module")
def module(request):
    """The native module on each instruction set that this machine has."""
    with pytest.MonkeyPatch.context() as context:
        context.setenv("FASTGAN_ISA", request.param)
        yield native()


def filled(shape, dtype, function, *arguments):
    """An array that a native function was asked to fill, in a larger one whose rest must stay as it was."""
    size = int(np.prod(shape))
    around = np.full(size + 64, 77, dtype=dtype)
    out = around[32 : 32 + size].reshape(shape)
    function(*arguments, out)
    assert (around[:32] == 77).all() and (around[32 + size :] == 77).all()
    return out


def assert_rounded(got: np.ndarray, wanted: np.ndarray) -> None:
    """Within 4 units in the last place, or 1e-14 where float64's own cosine is not zero but should be."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype == np.float32
    difference = np.abs(got.astype(np.float64) - wanted)
    assert (difference <= np.maximum(4 * np.spacing(np.abs(wanted)), 1e-14)).all()
    assert difference.max(initial=0.0) < 1e-6


class TestRandomness:
    @given(SEEDS, STREAMS, ROWS, COUNTS, COLUMNS)
    def test_words_are_bit_equal(self, module, seed, stream, first_row, rows, columns):
        got = filled((rows, columns), np.uint32, module.words, seed, stream, first_row)
        np.testing.assert_array_equal(got, noise.words(seed, stream, first_row, rows, columns))

    @given(SEEDS, STREAMS, ROWS, COUNTS, COLUMNS)
    def test_normals_are_equal_to_rounding(self, module, seed, stream, first_row, rows, columns):
        got = filled((rows, columns), np.float32, module.normal, seed, stream, first_row)
        assert_rounded(got, noise.normal(seed, stream, first_row, rows, columns))

    @given(SEEDS, STREAMS, st.lists(ROWS, max_size=40), COLUMNS)
    def test_rows_of_any_numbers_are_the_same_bits(self, module, seed, stream, rows, columns):
        index, shape = np.array(rows, np.int64), (len(rows), columns)
        words = filled(shape, np.uint32, module.words, seed, stream, index)
        np.testing.assert_array_equal(words, noise.words_at(seed, stream, index, columns))
        normals = filled(shape, np.float32, module.normal, seed, stream, index)
        for row, got in zip(rows, normals, strict=True):
            alone = filled((1, columns), np.float32, module.normal, seed, stream, row)
            np.testing.assert_array_equal(got, alone[0])

    def test_many_normals(self, module):
        got = filled((3000, 333), np.float32, module.normal, 5, 4, 2**32 - 1500)
        wanted = noise.normal(5, 4, 2**32 - 1500, 3000, 333)
        assert_rounded(got, wanted)
        assert np.abs(wanted).max() > 4.7  # far tails are among them

    @given(
        SEEDS,
        st.integers(0, 2**50),
        st.integers(0, 60),
        st.one_of(st.integers(1, 40), st.integers(1, 2**40), st.builds(lambda n: 2**n, st.integers(0, 40))),
    )
    def test_epoch_indices_are_equal(self, module, seed, first, count, size):
        got = filled((count,), np.int64, module.epoch_index, seed, first, size)
        np.testing.assert_array_equal(got, noise.epoch_index(seed, first, count, size))

    @pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 1000])
    def test_every_row_comes_once_an_epoch(self, module, size):
        got = filled((3 * size,), np.int64, module.epoch_index, 9, 5 * size, size)
        for epoch in got.reshape(3, size):
            assert sorted(epoch) == list(range(size))


def test_instruction_sets_agree_on_integers_with_rows_beyond_32_bits(monkeypatch):
    for isa in ISAS:
        monkeypatch.setenv("FASTGAN_ISA", isa)
        got = filled((5, 9), np.uint32, native().words, 2**64 - 1, 2**32 - 1, 2**63 - 7)
        np.testing.assert_array_equal(got, noise.words(2**64 - 1, 2**32 - 1, 2**63 - 7, 5, 9))


@pytest.mark.parametrize(
    "out", [np.empty(4, np.uint32), np.empty((2, 2), np.float64), np.empty((4, 4), np.uint32)[:, ::2]]
)
def test_arrays_that_cannot_be_filled_in_place_are_refused(out):
    with pytest.raises((TypeError, ValueError)):
        native().words(0, 0, 0, out)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([3, -1]), "from 0 on"),
        (np.array([3]), "one number for each row"),
        (np.array([[3, 1]]), "one number for each row"),
        (np.array([3.0, 1.0]), "int64"),
        (np.array([3, 1], np.int32), "int64"),
        (np.array([3, 1, 2])[::2], "int64"),
        (-1, "int64"),
        (1.5, "int64"),
        ([3, 1], "int64"),
    ],
)
def test_other_numbers_of_rows_are_refused(rows, message):
    for function, dtype in ((native().words, np.uint32), (native().normal, np.float32)):
        with pytest.raises(ValueError, match=f"rows: .*{message}"):
            function(0, 0, rows, np.empty((2, 3), dtype))


def test_no_data_has_no_epochs():
    with pytest.raises(ValueError, match="at least one data row"):
        native().epoch_index(0, 0, 0, np.empty(2, np.int64))


# ---- generated rows


def sampler_and_model(spec: ModelSpec, batch: int = 48, threads: int = 2):
    generator = generator_of(spec)
    model = Generator(spec).double()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in generator.parameters.items()})
    return native_sampler(generator, None, threads, batch), model


def labels_of(classes: int, first: int, rows: int) -> np.ndarray | None:
    return np.arange(first, first + rows) % classes if classes else None


def sampled(
    sampler, spec, rows, *, seed=3, stream=4, first=0, labels=None, dtype=np.float32, head=(1.0, 0.0)
):
    if labels is None:
        labels = labels_of(spec.classes, 0, rows)
    shape = (rows, spec.features)
    return filled(shape, dtype, lambda out: sampler.rows(seed, stream, first, labels, out, *head))


SPECS = st.builds(
    ModelSpec,
    latent=st.integers(1, 40),
    features=st.integers(1, 70),
    classes=st.sampled_from([0, 0, 1, 5]),
    g_hidden=st.lists(st.integers(1, 50), min_size=1, max_size=4).map(tuple),
    d_hidden=st.just((1,)),
    slope=st.sampled_from([0.0, 0.2, 1.0]),
    head=st.sampled_from(["sigmoid", "tanh", "linear"]),
)


@settings(max_examples=60)
@given(SPECS, st.integers(0, 90), ROWS)
def test_rows_are_the_generators(module, spec, rows, first):
    sampler, model = sampler_and_model(spec)
    z = torch.from_numpy(noise.normal(3, 4, first, rows, spec.latent)).double()
    labels = labels_of(spec.classes, 0, rows)
    with torch.no_grad():
        wanted = model(z, None if labels is None else torch.from_numpy(labels)).numpy()
    got = sampled(sampler, spec, rows, first=first)
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)
    if spec.head == "linear":
        return
    scale, shift = (2 / 255, -1.0) if spec.head == "tanh" else (1 / 255, 0.0)
    stored = (wanted - shift) / scale
    bytes_ = sampled(sampler, spec, rows, first=first, dtype=np.uint8, head=(scale, shift))
    tie = np.abs(stored - np.floor(stored) - 0.5) < 1e-2
    expected = np.clip(np.rint(stored), 0, 255)
    assert (np.abs(bytes_ - expected) <= tie).all()


def test_bytes_are_clamped_and_ties_go_to_even():
    spec = ModelSpec(latent=1, features=8, classes=0, g_hidden=(1,), d_hidden=(1,), slope=0.2, head="linear")
    sampler = native().Sampler(native_spec(spec, 16), 1)
    values = np.array([-1e9, -0.5, 0.5, 1.5, 2.5, 254.5, 255.5, 1e9], np.float32)
    sampler.set(0, np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    sampler.set(1, np.zeros((8, 1), np.float32), values)
    expected = [0, 0, 0, 2, 2, 254, 255, 255]
    assert sampled(sampler, spec, 3, dtype=np.uint8).tolist() == [expected] * 3


@pytest.mark.parametrize("head", ["sigmoid", "tanh", "linear"])
def test_values_that_are_not_numbers_become_the_byte_0(module, head):
    """In whole vectors and in the stretch that is shorter than one."""
    spec = ModelSpec(latent=3, features=21, classes=0, g_hidden=(4,), d_hidden=(1,), slope=0.2, head=head)
    sampler = module.Sampler(native_spec(spec, 16), 1)
    bias = np.full(21, np.nan, np.float32)
    bias[[5, 17]] = 0.25
    sampler.set(0, np.zeros((4, 3), np.float32), np.zeros(4, np.float32))
    sampler.set(1, np.zeros((21, 4), np.float32), bias)
    schema = Schema("array", (21,), "uint8")
    floats = sampled(sampler, spec, 19)
    np.testing.assert_array_equal(np.isnan(floats), np.tile(np.isnan(bias), (19, 1)))
    bytes_ = sampled(sampler, spec, 19, dtype=np.uint8, head=schema.affine(head))
    np.testing.assert_array_equal(bytes_ == 0, np.isnan(floats))
    np.testing.assert_array_equal(schema.decode(floats, head), bytes_)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_row_is_the_same_bits_whatever_is_asked_for_with_it(module, classes, dtype):
    spec = ModelSpec(
        latent=18, features=37, classes=classes, g_hidden=(33, 20), d_hidden=(1,), slope=0.2, head="sigmoid"
    )
    head = (1 / 255, 0.0) if dtype == np.uint8 else (1.0, 0.0)
    whole = sampled(sampler_and_model(spec)[0], spec, 200, dtype=dtype, head=head)
    for batch, threads in ((16, 1), (17, 3), (48, 5), (256, 2)):
        sampler = sampler_and_model(spec, batch, threads)[0]
        for first, rows in ((0, 200), (1, 33), (77, 1), (100, 100), (199, 1)):
            labels = labels_of(spec.classes, first, rows)
            part = sampled(sampler, spec, rows, first=first, labels=labels, dtype=dtype, head=head)
            np.testing.assert_array_equal(part, whole[first : first + rows])
        index = np.random.default_rng(batch).integers(0, 200, 150)
        labels = labels_of(spec.classes, 0, 200)
        labels = None if labels is None else labels[index]
        part = sampled(sampler, spec, 150, first=index, labels=labels, dtype=dtype, head=head)
        np.testing.assert_array_equal(part, whole[index])


def test_a_sampler_refuses_what_does_not_fit():
    spec = ModelSpec(latent=4, features=6, classes=2, g_hidden=(5,), d_hidden=(1,), slope=0.2, head="sigmoid")
    sampler = sampler_and_model(spec)[0]
    with pytest.raises(ValueError, match="labels"):
        sampler.rows(0, 4, 0, None, np.empty((3, 6), np.float32), 1.0, 0.0)
    for out in (np.empty((3, 6)), np.empty((3, 12), np.float32)[:, ::2], np.empty((3, 6), np.int8)):
        with pytest.raises((TypeError, RuntimeError)):
            sampler.rows(0, 4, 0, np.zeros(3, np.int64), out, 1.0, 0.0)
    with pytest.raises(ValueError, match="out"):
        sampler.rows(0, 4, 0, np.zeros(3, np.int64), np.empty(17, np.float32), 1.0, 0.0)
    for labels in (np.zeros(2, np.int64), np.zeros(3), np.zeros(3, np.int32)):
        with pytest.raises(ValueError, match="labels"):
            sampler.rows(0, 4, 0, labels, np.empty((3, 6), np.float32), 1.0, 0.0)
    for rows in (np.zeros(2, np.int64), np.zeros(3), np.array([0, -1, 0]), -1):
        with pytest.raises(ValueError, match="rows"):
            sampler.rows(0, 4, rows, np.zeros(3, np.int64), np.empty((3, 6), np.float32), 1.0, 0.0)
    with pytest.raises(ValueError, match="weight"):
        sampler.set(0, np.empty((5, 5), np.float32), np.empty(5, np.float32))
    with pytest.raises(ValueError, match="layer"):
        sampler.set(2, np.empty((5, 5), np.float32), np.empty(5, np.float32))
