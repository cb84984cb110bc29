"""Files to read, real MNIST where it lies beside the repository, and how refusals are checked."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from idx_writer import idx_bytes

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


@pytest.fixture
def write_idx():
    def write(path: Path, array: np.ndarray, packed: bool = False) -> Path:
        data = idx_bytes(np.asarray(array))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if packed else data)
        return path

    return write


@pytest.fixture
def real_mnist() -> Path:
    if not REAL.is_dir():
        pytest.skip("no real MNIST in ../shared/data/mnist")
    return REAL


@pytest.fixture
def images() -> np.ndarray:
    """Ten 4x5 images, uint8."""
    return np.random.default_rng(0).integers(0, 256, (10, 4, 5), dtype=np.uint8)


@pytest.fixture
def refused():
    """Call ``load`` on a source that must be refused; returns the message, checked to be one line."""
    from fastgan.data import load
    from fastgan.errors import UserError

    def call(source) -> str:
        with pytest.raises(UserError) as caught:
            load(str(source))
        text = str(caught.value)
        assert text.startswith("--data ") and "\n" not in text and text.isprintable()
        return text

    return call
