"""The counter-based randomness: published vectors, an independent scalar version, addressing, statistics."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgan import noise
from fastgan.errors import UserError
from fastgan.noise import Stream

SEEDS = st.integers(0, 2**64 - 1)
ROWS = st.integers(0, 2**63 - 1)

# kat_vectors of the Random123 distribution, "philox4x32 10".
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as the paper draws it, in Python's unbounded integers."""
    r0, l0, r1, l1 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = r0 * 0xD2511F53, r1 * 0xCD9E8D57
        r0, l0 = (product1 >> 32) ^ l0 ^ k0, product1 % 2**32
        r1, l1 = (product0 >> 32) ^ l1 ^ k1, product0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


def scalar_word(seed: int, stream: int, row: int, column: int) -> int:
    counter = [column // 4, row % 2**32, row // 2**32, stream]
    return scalar_philox(counter, [seed % 2**32, seed // 2**32])[column % 4]


def scalar_epoch_index(seed: int, position: int, size: int) -> int:
    """The Feistel network with cycle walking, one position at a time."""

    def mix(x: int, key: int) -> int:
        h = ((x ^ key) * 0xD2511F53) % 2**32
        h = ((h ^ (h >> 15)) * 0xCD9E8D57) % 2**32
        return h ^ (h >> 13)

    bits = 4
    while 2**bits < size:
        bits += 1
    low_bits = bits // 2
    high_bits = bits - low_bits
    epoch, x = divmod(position, size)
    while True:
        low, high = x % 2**low_bits, x // 2**low_bits
        for r in range(12):
            key = scalar_word(seed, 2, epoch, r)
            if r % 2 == 0:
                high ^= mix(low, key) % 2**high_bits
            else:
                low ^= mix(high, key) % 2**low_bits
        x = high * 2**low_bits + low
        if x < size:
            return x


# ---- integers


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    seed = key[0] | key[1] << 32
    assert noise.philox4x32(np.array([counter], dtype=np.uint32), seed).tolist() == [expected]
    assert scalar_philox(counter, key) == expected


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), SEEDS)
def test_matches_big_integers(counter, seed):
    got = noise.philox4x32(np.array(counter, dtype=np.uint32), seed)
    assert got.dtype == np.uint32
    assert got.tolist() == scalar_philox(counter, [seed % 2**32, seed // 2**32])


def test_keeps_the_counters_shape():
    counter = np.arange(2 * 3 * 4, dtype=np.uint32).reshape(2, 3, 4)
    got = noise.philox4x32(counter, 5)
    assert got.shape == (2, 3, 4)
    assert np.array_equal(got[1, 2], noise.philox4x32(counter[1, 2], 5))


@given(SEEDS, st.integers(0, 2**32 - 1), ROWS, st.integers(0, 3), st.integers(0, 11))
def test_each_word_stands_where_its_address_says(seed, stream, first_row, row, column):
    got = noise.words(seed, stream, first_row, 4, 12)
    assert got[row, column] == scalar_word(seed, stream, first_row + row, column)


def test_far_columns():
    column = 4 * 70_001 + 3
    assert noise.words(3, 1, 2, 1, column + 1)[0, column] == scalar_word(3, 1, 2, column)


def test_stream_numbers_are_part_of_the_file_format():
    assert {s.name: int(s) for s in Stream} == {
        "D_NOISE": 0,
        "G_NOISE": 1,
        "SHUFFLE": 2,
        "INIT": 3,
        "SAMPLES": 4,
        "LABELS": 5,
    }


FUNCTIONS = [noise.words, noise.uniform, noise.normal]


@pytest.mark.parametrize("function", FUNCTIONS)
@given(ROWS, st.integers(0, 20), st.integers(0, 20), st.integers(0, 9))
def test_rows_do_not_depend_on_the_split(function, first, a, b, columns):
    first = min(first, 2**63 - 50)
    whole = function(7, 1, first, a + b, columns)
    parts = [function(7, 1, first, a, columns), function(7, 1, first + a, b, columns)]
    assert whole.shape == (a + b, columns)
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rows_one_by_one_across_32_bits(function):
    first = 2**32 - 3
    whole = function(1, 0, first, 6, 5)
    assert np.array_equal(whole, np.concatenate([function(1, 0, first + i, 1, 5) for i in range(6)]))
    assert len(np.unique(whole, axis=0)) == 6


@pytest.mark.parametrize("function", FUNCTIONS)
def test_fewer_columns_are_a_prefix(function):
    widest = function(1, 0, 5, 3, 13)
    for columns in range(13):
        assert np.array_equal(function(1, 0, 5, 3, columns), widest[:, :columns])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpy_integers_are_as_good_as_python_ones(function):
    expected = function(5, 1, 3, 2, 6)
    for kind in (np.int32, np.int64, np.uint64):
        got = function(kind(5), kind(1), kind(3), kind(2), kind(6))
        assert np.array_equal(got, expected)


# ---- numbers


def test_uniform_is_the_top_24_bits_exactly():
    words = noise.words(3, 4, 0, 100, 10)
    u = noise.uniform(3, 4, 0, 100, 10)
    assert u.dtype == np.float32
    assert np.array_equal(u.astype(np.float64) * 2**24, words >> 8)


def test_uniform_ends(monkeypatch):
    monkeypatch.setattr(noise, "words", lambda *_: np.array([[0, 255, 2**32 - 1]], dtype=np.uint32))
    assert noise.uniform(0, 0, 0, 1, 3).tolist() == [[0.0, 0.0, 1.0 - 2.0**-24]]


def exact_normals(words: np.ndarray) -> np.ndarray:
    """Box & Muller in 40 digits, on the words of each pair of columns."""
    out = np.empty(words.shape)
    with mpmath.workdps(40):
        for row, column in np.ndindex(words.shape[0], words.shape[1] // 2):
            w0, w1 = (int(w) for w in words[row, 2 * column : 2 * column + 2])
            u = (mpmath.mpf(w0 >> 9) + mpmath.mpf("0.5")) / 2**23
            v = mpmath.mpf(w1 >> 8) / 2**24
            radius = mpmath.sqrt(-2 * mpmath.log(u))
            out[row, 2 * column] = radius * mpmath.cos(2 * mpmath.pi * v)
            out[row, 2 * column + 1] = radius * mpmath.sin(2 * mpmath.pi * v)
    return out


def assert_rounded_once(got: np.ndarray, exact: np.ndarray) -> None:
    half_ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64) / 2
    assert got.dtype == np.float32
    # Float64's own error moves a rounding only when the exact value is this near to a tie.
    assert np.all(np.abs(got - exact) <= half_ulp * 1.0001 + 1e-15)


def test_normals_are_rounded_once():
    assert_rounded_once(noise.normal(11, 0, 2**35, 50, 8), exact_normals(noise.words(11, 0, 2**35, 50, 8)))


def test_normals_at_the_ends_of_the_words(monkeypatch):
    ends = [0, 2**32 - 1, 2**31, 2**31 - 1, 2**30, 2**9, 2**9 - 1, 2**8]
    words = np.array([[a, b] for a in ends for b in ends], dtype=np.uint32).reshape(-1, 4)
    monkeypatch.setattr(noise, "words_at", lambda *_: words)
    got = noise.normal(0, 0, 0, len(words), 4)
    assert_rounded_once(got, exact_normals(words))
    assert np.isfinite(got).all()
    assert np.abs(got).max() == np.float32(math.sqrt(48 * math.log(2)))  # 5.77, from the word 0


@pytest.fixture(scope="module")
def normals() -> np.ndarray:
    return noise.normal(2024, Stream.D_NOISE, 0, 2**16, 16).astype(np.float64)


def test_moments(normals):
    x, n = normals.ravel(), normals.size
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - expected) < 4 * math.sqrt(variance / n), power


def test_distribution(normals):
    x = np.sort(normals.ravel())
    expected = torch.special.ndtr(torch.from_numpy(x)).numpy()
    steps = np.arange(len(x) + 1) / len(x)
    distance = max((expected - steps[:-1]).max(), (steps[1:] - expected).max())
    assert distance < 1.95 / math.sqrt(len(x))  # Kolmogorov & Smirnov, one in a thousand


@pytest.mark.parametrize("beyond", [2.0, 3.0, 4.0, 4.5])
def test_tails(normals, beyond):
    expected = math.erfc(beyond / math.sqrt(2)) / 2 * normals.size
    for side in (normals > beyond, normals < -beyond):
        assert abs(side.sum() - expected) < 4 * math.sqrt(expected)


def assert_uncorrelated(a: np.ndarray, b: np.ndarray) -> None:
    for f in (lambda x: x, np.square, np.abs):
        assert abs(np.corrcoef(f(a.ravel()), f(b.ravel()))[0, 1]) < 4.5 / math.sqrt(a.size)


def test_columns_are_uncorrelated(normals):
    for i in range(16):
        for j in range(i):
            assert_uncorrelated(normals[:, i], normals[:, j])


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 128, 2**15])
def test_rows_are_uncorrelated(normals, lag):
    assert_uncorrelated(normals[lag:], normals[:-lag])


@pytest.mark.parametrize("seed", [2025, 2024 + 2**32, 2024 + 2**63, 0])
def test_seeds_are_uncorrelated(normals, seed):
    assert_uncorrelated(normals, noise.normal(seed, Stream.D_NOISE, 0, 2**16, 16).astype(np.float64))


def test_streams_are_uncorrelated(normals):
    for stream in set(Stream) - {Stream.D_NOISE}:
        assert_uncorrelated(normals, noise.normal(2024, stream, 0, 2**16, 16).astype(np.float64))


def chi_square_excess(counts: np.ndarray, degrees: int) -> float:
    """How many standard deviations the chi-square of equally likely cells is off its mean."""
    expected = counts.mean()
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


def test_uniform_is_even():
    u = noise.uniform(1, Stream.SAMPLES, 0, 2**14, 8)
    assert abs(chi_square_excess(np.bincount((u * 256).astype(int).ravel(), minlength=256), 255)) < 4
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert abs(u.mean(dtype=np.float64) - 0.5) < 4 / math.sqrt(12 * u.size)


# ---- epochs


@given(SEEDS, st.integers(1, 5000), st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(seed, size, epoch):
    got = noise.epoch_index(seed, epoch * size, size, size)
    assert got.dtype == np.int64
    assert np.array_equal(np.sort(got), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 60_000, 65_536, 65_537, 1_000_000])
def test_an_epoch_is_a_permutation_at_telling_sizes(size):
    assert np.array_equal(np.sort(noise.epoch_index(9, size, size, size)), np.arange(size))


def test_the_largest_size():
    size = 2**40
    got = noise.epoch_index(9, 3 * size - 50_000, 100_000, size)
    assert len(np.unique(got[:50_000])) == len(np.unique(got[50_000:])) == 50_000
    assert got.min() >= 0
    assert got.max() < size
    assert abs(got.mean() / size - 0.5) < 4 / math.sqrt(12 * len(got))


@given(SEEDS, st.integers(0, 2**63 - 1), st.integers(1, 300))
def test_epoch_index_matches_the_scalar_version(seed, first, size):
    got = noise.epoch_index(seed, first, 3, size)
    assert got.tolist() == [scalar_epoch_index(seed, first + i, size) for i in range(3)]


@pytest.mark.parametrize("size", [10_000, 65_537, 2**40 - 1, 2**40])
def test_epoch_index_matches_the_scalar_version_at_large_sizes(size):
    for first in (0, 2**40, 2**62):
        got = noise.epoch_index(5, first, 3, size)
        assert got.tolist() == [scalar_epoch_index(5, first + i, size) for i in range(3)]


@given(st.integers(1, 40), st.integers(0, 2**50), st.integers(0, 150), st.integers(0, 150))
def test_batches_straddle_epochs(size, first, a, b):
    whole = noise.epoch_index(3, first, a + b, size)
    parts = [noise.epoch_index(3, first, a, size), noise.epoch_index(3, first + a, b, size)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_epochs_and_seeds_differ():
    orders = {tuple(noise.epoch_index(s, e * 50, 50, 50)) for s in range(20) for e in range(20)}
    assert len(orders) == 400


@pytest.mark.parametrize("size", [3, 7, 16, 37, 50])
def test_rows_fall_evenly(size):
    """Every row at every position, and every row after every other one, equally often."""
    epochs = 40 * size
    order = noise.epoch_index(1, 0, epochs * size, size).reshape(epochs, size)
    position = np.zeros((size, size))
    np.add.at(position, (np.arange(size)[None, :], order), 1)
    assert abs(chi_square_excess(position, (size - 1) ** 2)) < 4

    follows = np.zeros((size, size))
    np.add.at(follows, (order[:, :-1], order[:, 1:]), 1)
    assert np.diagonal(follows).sum() == 0
    others = follows[~np.eye(size, dtype=bool)]
    assert abs(chi_square_excess(others, size * (size - 1) - 1)) < 4


# ---- bad input

GOOD_WORDS = dict(seed=0, stream=0, first_row=0, rows=1, columns=1)
GOOD_EPOCH = dict(seed=0, first=0, count=1, size=5)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("argument", GOOD_WORDS)
@pytest.mark.parametrize("value", [-1, 2**64, 0.5, "1", None])
def test_bad_arguments_are_named(function, argument, value):
    with pytest.raises(UserError, match=rf"^{argument}: got .*; wanted a whole number from 0 to"):
        function(**GOOD_WORDS | {argument: value})


@pytest.mark.parametrize("argument", GOOD_EPOCH)
@pytest.mark.parametrize("value", [-1, 2**64, 0.5, "1", None])
def test_bad_epoch_arguments_are_named(argument, value):
    with pytest.raises(UserError, match=rf"^{argument}: got .*; wanted a whole number from 0 to"):
        noise.epoch_index(**GOOD_EPOCH | {argument: value})


def test_no_data_rows():
    with pytest.raises(UserError, match=r"^size: got 0; wanted at least one data row"):
        noise.epoch_index(0, 0, 1, 0)


def test_empty_blocks():
    assert noise.words(0, 0, 0, 0, 5).shape == (0, 5)
    assert noise.normal(0, 0, 0, 5, 0).shape == (5, 0)
    assert noise.epoch_index(0, 2**63 - 1, 0, 5).shape == (0,)
