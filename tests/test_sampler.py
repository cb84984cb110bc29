"""The one source of rows: the same bits however they are asked for, from both engines."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.generators import exact, generator_of, spec_of
from helpers.modes import MODES
from helpers.programs import run_program
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan import noise
from fastgan.engines import available
from fastgan.errors import UserError
from fastgan.sampler import ENGINES as SAMPLER_ENGINES
from fastgan.sampler import Sampler

ENGINES = [e.name for e in available() if e.usable and e.name in SAMPLER_ENGINES]
# 37 -> 5 is a product whose rows, in PyTorch, depend on their place.
GENERATORS = {
    "bytes": generator_of(spec_of(13, latent=37, g_hidden=(5, 33)), scale=3.0),
    "floats": generator_of(spec_of(13, g_hidden=(37, 5), head="linear"), dtype="float32"),
    # Large enough for the tile unit, where there is one.
    "wide floats": generator_of(spec_of(35, latent=70, g_hidden=(100, 130)), dtype="float32"),
    "labels": generator_of(spec_of(12, 4, head="tanh"), shape=(2, 2, 3), counts=(1, 0, 2, 5)),
}


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture(params=GENERATORS)
def generator(request):
    return GENERATORS[request.param]


@pytest.mark.parametrize("first", [0, 250, 2**32 - 5, 2**63 - 400])
def test_rows_are_the_generators(engine, generator, first):
    sampler = Sampler(generator, engine=engine)
    rows = sampler.rows(first, 300)
    assert rows.shape == (300, *generator.schema.shape) and rows.dtype == generator.schema.dtype
    wanted = exact(generator, 3, np.arange(first, first + 300), sampler.labels(first, 300))
    if generator.schema.dtype == "float32":
        np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-5)
        return
    scale, shift = generator.schema.affine(generator.spec.head)
    stored = np.clip((wanted - shift) / scale, 0, 255)
    tie = np.abs(stored - np.floor(stored) - 0.5) < 1e-2
    assert tie.mean() < 0.05
    assert (np.abs(rows.reshape(300, -1) - np.rint(stored)) <= tie).all()


def test_engines_agree_on_bytes_away_from_ties():
    if len(ENGINES) < 2:
        pytest.skip("one engine only")
    for name in ("bytes", "labels"):
        one, other = (Sampler(GENERATORS[name], engine=e).rows(0, 2000) for e in ENGINES)
        assert (one != other).mean() < 1e-4
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GENERATORS)
def test_rows_of_a_gpu_are_those_of_the_processor(name):
    generator, count = GENERATORS[name], 50_000  # several launches of both lanes
    sampler, first = Sampler(generator), 2**32 - 25_000
    there = Sampler(generator, device="cuda")
    rows, here = (s.rows(first, count).reshape(count, -1) for s in (there, sampler))
    index = np.random.default_rng(0).integers(0, count, 777)
    np.testing.assert_array_equal(there.take(first + index).reshape(777, -1), rows[index])
    some = Sampler(generator, device="cuda:0", features=np.array([3, 0, 11])).rows(first, 100)
    np.testing.assert_array_equal(some, rows[:100, [3, 0, 11]])
    wanted = exact(generator, 3, np.arange(first, first + count), sampler.labels(first, count))
    if generator.schema.dtype == "float32":
        error = np.abs(here - wanted).max()
        np.testing.assert_allclose(rows, wanted, rtol=0, atol=2 * error + 1e-6)
        return
    scale, shift = generator.schema.affine(generator.spec.head)
    stored = (wanted - shift) / scale
    from_tie, differ = np.abs(stored - np.floor(stored) - 0.5), rows != here
    assert from_tie[differ].max(initial=0.0) < 1e-3 and differ.mean() < 1e-4


@settings(max_examples=25)
@given(st.integers(0, 700), st.integers(0, 40), st.lists(st.integers(0, 699), max_size=40), st.data())
def test_a_row_is_the_same_bits_in_any_company(first, count, index, data):
    engine = data.draw(st.sampled_from(ENGINES))
    generator = GENERATORS[data.draw(st.sampled_from(sorted(GENERATORS)))]
    everything = whole(generator, engine)
    sampler = Sampler(generator, engine=engine)
    np.testing.assert_array_equal(sampler.rows(first, count), everything[first : first + count])
    index = np.array(index, dtype=np.int64)
    np.testing.assert_array_equal(sampler.take(index), everything[index])


_WHOLE = {}


def whole(generator, engine):
    key = id(generator), engine
    if key not in _WHOLE:
        _WHOLE[key] = Sampler(generator, engine=engine, threads=2).rows(0, 740)
    return _WHOLE[key]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_of_either_kind_change_nothing(engine, generator, threads):
    sampler = Sampler(generator, engine=engine, threads=threads)
    np.testing.assert_array_equal(sampler.rows(0, 740), whole(generator, engine))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda i: sampler.rows(i, 37), range(0, 740, 37)))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(np.concatenate(parts), whole(generator, engine))


def test_pickled_and_written_in_place(engine, generator):
    sampler = Sampler(generator, engine=engine)
    sampler.rows(0, 1)
    again = pickle.loads(pickle.dumps(sampler))
    around = np.full((42, generator.spec.features), 77, generator.schema.dtype)
    again.rows(5, 40, out=around[1:41])
    np.testing.assert_array_equal(around[1:41], whole(generator, engine)[5:45].reshape(40, -1))
    assert (around[0] == 77).all() and (around[41] == 77).all()


def test_other_processes_give_the_same_rows(engine, tmp_path):
    generator = GENERATORS["labels"]
    path = tmp_path / "sampler"
    path.write_bytes(pickle.dumps(Sampler(generator, engine=engine, threads=2)))
    code = f"""
import hashlib, multiprocessing, pickle, sys
sampler = pickle.loads(open({str(path)!r}, "rb").read())
sampler.rows(0, 300)  # the threads of the parent are not there in its child
def work(queue):
    queue.put(hashlib.sha256(sampler.rows(0, 740).tobytes()).hexdigest())
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=work, args=(queue,))
with sampler._computers.lend(None):  # another thread of the parent is at work, and not there in its child
    process.start()
print(queue.get())
process.join()
work(type("Print", (), {{"put": print}}))
"""
    done = run_program(code, OMP_NUM_THREADS="1")
    wanted = hashlib.sha256(whole(generator, engine).tobytes()).hexdigest()
    assert done.stdout.split() == [wanted] * 2, done.stderr


def test_chosen_features_are_those_of_whole_rows(engine, generator):
    features = np.array([3, 0, 11])
    rows = Sampler(generator, features=features, engine=engine).rows(0, 740)
    np.testing.assert_array_equal(rows, whole(generator, engine).reshape(740, -1)[:, features])


def test_seeds_differ(engine, generator):
    one, other = Sampler(generator, 8, engine=engine), Sampler(replace(generator, seed=8), engine=engine)
    np.testing.assert_array_equal(one.rows(0, 50), other.rows(0, 50))
    assert (one.rows(0, 50) != whole(generator, engine)[:50]).mean() > 0.5


@pytest.mark.parametrize("mode", MODES)
def test_modes_that_the_caller_set_change_nothing(engine, mode):
    generator = GENERATORS["labels"]
    with MODES[mode]():
        sampler = Sampler(generator, engine=engine)
        np.testing.assert_array_equal(sampler.rows(0, 740), whole(generator, engine))
    np.testing.assert_array_equal(sampler.rows(0, 740), whole(generator, engine))


# ---- labels


def test_labels_are_drawn_as_the_data_had_them(engine):
    counts = (1000, 0, 250, 8750)
    sampler = Sampler(generator_of(spec_of(5, 4), counts=counts), engine=engine)
    labels = sampler.labels(0, 200_000)
    assert labels.dtype == np.int64
    shares = np.bincount(labels, minlength=4) / 200_000
    deviation = np.sqrt(np.array(counts) / 10_000 * (1 - np.array(counts) / 10_000) / 200_000)
    assert (np.abs(shares - np.array(counts) / 10_000) <= 4 * deviation).all()
    np.testing.assert_array_equal(sampler.labels(777, 99), labels[777:876])
    index = np.array([5, 3, 2**62, 3])
    assert sampler.labels_at(index).tolist() == [sampler.labels(i, 1)[0] for i in index]
    assert (Sampler(sampler.generator, 4).labels(0, 1000) != labels[:1000]).any()
    for other in ENGINES:
        same = Sampler(sampler.generator, engine=other)
        np.testing.assert_array_equal(
            same.labels_at(np.arange(2**33, 0, -(2**27))), sampler.labels_at(np.arange(2**33, 0, -(2**27)))
        )


@pytest.mark.parametrize("counts", [(1,), (0, 0, 7, 0), (2**40, 1), (1, 2**40, 2**40)])
def test_labels_at_the_ends_of_the_words(monkeypatch, counts):
    sampler = Sampler(generator_of(spec_of(5, len(counts)), counts=counts), engine="reference")
    words = np.array([[0], [2**32 - 1], [2**31], [2**31 - 1]], np.uint32)
    monkeypatch.setattr(noise, "words_at", lambda seed, stream, row, columns: words)
    total = sum(counts)
    ends = [sum(counts[: i + 1]) * 2**32 // total for i in range(len(counts))]
    expected = [next(i for i, end in enumerate(ends) if int(w) < end) for w in words[:, 0]]
    assert sampler.labels(0, 4).tolist() == expected


def test_given_labels_make_the_row(engine):
    generator = GENERATORS["labels"]
    sampler = Sampler(generator, engine=engine)
    drawn, ones = sampler.labels(0, 740), sampler.rows(0, 740, 0)
    np.testing.assert_array_equal(ones[drawn == 0], whole(generator, engine)[drawn == 0])
    assert (ones[drawn != 0] != whole(generator, engine)[drawn != 0]).any()
    mixed = sampler.rows(0, 740, np.where(np.arange(740) < 300, 0, drawn))
    np.testing.assert_array_equal(mixed[:300], ones[:300])
    np.testing.assert_array_equal(mixed[300:], whole(generator, engine)[300:])


def test_without_labels_there_are_none(engine):
    sampler = Sampler(GENERATORS["bytes"], engine=engine)
    assert sampler.labels(0, 5) is None and sampler.labels_at(np.arange(3)) is None
    with pytest.raises(UserError, match="without --condition"):
        sampler.rows(0, 5, 1)


# ---- what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.rows(-1, 2), "first"),
        (lambda s: s.rows(0, -2), "count"),
        (lambda s: s.rows(2**63 - 2, 2), "count"),
        (lambda s: s.rows(0.5, 2), "first"),
        (lambda s: s.rows(True, 2), "first"),
        (lambda s: s.take(np.array([1.5])), "index: got float64"),
        (lambda s: s.take(np.array([[1]])), "index"),
        (lambda s: s.take(np.array([3, -1])), "index: got -1 to 3"),
        (lambda s: s.take(np.array([2**63], np.uint64)), "index"),
        (lambda s: s.rows(0, 2, 4), "labels: got 4 to 4; wanted numbers from 0 to 3"),
        (lambda s: s.rows(0, 2, np.array([1, -1])), "labels"),
        (lambda s: s.rows(0, 2, np.array([1, 1, 1])), "labels: got shape"),
        (lambda s: s.rows(0, 2, out=np.empty((2, 12), np.float32)), "out: got float32"),
        (lambda s: s.rows(0, 2, out=np.empty((3, 12), np.uint8)), "out"),
        (lambda s: s.rows(0, 2, out=np.empty((2, 24), np.uint8)[:, ::2]), "out"),
        (lambda s: Sampler(s.generator, engine="cup"), "Did you mean 'cpu'"),
        (lambda s: Sampler(s.generator, 2**63), "seed"),
        (lambda s: Sampler(s.generator, "3"), "seed: got '3'"),
        (lambda s: Sampler(s.generator, 10**5000), "seed: got a number of 16,610 bits"),
    ],
)
def test_bad_arguments_are_named(engine, call, message):
    with pytest.raises(UserError, match=message):
        call(Sampler(GENERATORS["labels"], engine=engine))


def test_no_rows(engine, generator):
    assert Sampler(generator, engine=engine).rows(3, 0).shape == (0, *generator.schema.shape)
    assert Sampler(generator, engine=engine).take(np.array([], int)).shape == (0, *generator.schema.shape)


def test_auto_takes_pytorch_where_the_native_module_is_absent(monkeypatch):
    from fastgan.kernels import cpu

    def absent():
        raise UserError("the native CPU engine", "no module", "one")

    assert Sampler(GENERATORS["bytes"]).engine == ENGINES[-1]
    monkeypatch.setattr(cpu, "native", absent)
    assert Sampler(GENERATORS["bytes"]).engine == "reference"
    with pytest.raises(UserError, match="no module"):
        Sampler(GENERATORS["bytes"], engine="cpu")
