"""Round trips of any array, and damaged files: each must load or be refused, never anything else."""

import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx_writer import idx_bytes

from fastgan.data import load
from fastgan.errors import UserError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)
RELAXED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "file"


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz_bytes(array, save):
    stream = io.BytesIO()
    save(stream, images=array, labels=np.arange(len(array)))
    return stream.getvalue()


@RELAXED
@given(array=hnp.arrays(np.uint8, SHAPES), packed=st.booleans())
def test_idx_round_trip(place, array, packed):
    data = idx_bytes(array)
    place.write_bytes(gzip.compress(data) if packed else data)
    loaded = load(str(place))
    assert loaded.schema.shape == array.shape[1:]
    assert (loaded.rows.reshape(array.shape) == array).all()


@RELAXED
@given(
    array=hnp.arrays(
        st.sampled_from(["<f4", ">f8", "<f2"]),
        SHAPES,
        elements=st.floats(-1e4, 1e4, width=16),
    ),
    fortran=st.booleans(),
)
def test_npy_round_trip(place, array, fortran):
    place.write_bytes(npy_bytes(np.asfortranarray(array) if fortran else array))
    loaded = load(str(place))
    assert (loaded.rows.reshape(array.shape) == array.astype(np.float32)).all()


BASE = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
WHOLE = {
    "idx": idx_bytes(BASE),
    "float idx": idx_bytes(BASE.astype(np.float64)),
    "idx.gz": gzip.compress(idx_bytes(BASE)),
    "npy": npy_bytes(BASE),
    "float npy": npy_bytes(BASE.astype(np.float32)),
    "npz": npz_bytes(BASE, np.savez),
    "compressed npz": npz_bytes(BASE, np.savez_compressed),
}


@pytest.mark.parametrize("kind", WHOLE)
@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_damaged_files(place, kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(0, 4), "flips")):
        at = data.draw(st.integers(0, len(content) - 1), "at")
        content[at] = data.draw(st.integers(0, 255), "byte")
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)), "length")]
    content += data.draw(st.binary(max_size=8), "tail")
    place.write_bytes(content)
    try:
        loaded = load(str(place))
    except UserError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert loaded.rows.ndim == 2 and loaded.rows.size
        assert loaded.rows.dtype == loaded.schema.dtype and np.isfinite(loaded.rows).all()
