"""NumPy files: ``.npy`` holds rows, ``.npz`` rows and labels. Nothing is unpickled.

``numpy.load`` allocates what a header claims before it looks at the file; here memory follows the content.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastgan.data.reading import argument, decoding, payload, shown, slug
from fastgan.data.rows import build
from fastgan.data.schema import Data
from fastgan.errors import UserError

NPY_MAGIC = b"\x93NUMPY"
NPZ_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
ROW_KEYS = ("images", "x", "data", "rows")
LABEL_KEYS = ("labels", "y")

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npy(path: Path, source: str) -> Data:
    """Read the rows of a ``.npy`` file; it has no labels.

    Raises:
        UserError: a damaged file, an object or structured array, or as :func:`~fastgan.data.rows.build`.
    """
    front = argument(source)
    with decoding(front, "an .npy file"), open(path, "rb") as stream:
        array = _read(stream, front)
    return build(array, None, argument=front, name=slug(path.stem), source=shown(source))


def load_npz(path: Path, source: str) -> Data:
    """Read an ``.npz`` file: rows under a key of ``ROW_KEYS`` or any single one, labels of ``LABEL_KEYS``.

    Raises:
        UserError: a damaged file, no or several arrays to choose from, an object or structured array, or as
            :func:`~fastgan.data.rows.build`.
    """
    front = argument(source)
    with decoding(front, "an .npz file"), zipfile.ZipFile(path) as archive:
        members = {m.removesuffix(".npy"): m for m in archive.namelist() if m.endswith(".npy")}
        key, label_key = _choose(list(members), front)
        array = _member(archive, members[key], front)
        labels = None if label_key is None else _member(archive, members[label_key], front)
    return build(array, labels, argument=front, name=slug(path.stem), source=shown(source))


def _choose(keys: list[str], front: str) -> tuple[str, str | None]:
    """Return the key of the rows and that of the labels (or None)."""
    labels = [k for k in keys if k in LABEL_KEYS]
    rows = [k for k in keys if k in ROW_KEYS] or [k for k in keys if k not in LABEL_KEYS]
    if len(rows) != 1 or len(labels) > 1:
        got = f"the arrays {', '.join(map(shown, keys[:8]))}" if keys else "no arrays"
        wanted = f"one of {', '.join(ROW_KEYS)} for the rows, and at most one of {', '.join(LABEL_KEYS)}"
        raise UserError(front, got, wanted, "Save with np.savez(path, images=..., labels=...).")
    return rows[0], labels[0] if labels else None


def _member(archive: zipfile.ZipFile, member: str, front: str) -> np.ndarray:
    with archive.open(member) as stream:
        return _read(stream, f"{front}: {shown(member)}")


def _read(stream: BinaryIO, front: str) -> np.ndarray:
    """Read one array in NumPy's format, which must fill the stream to its end."""
    start = stream.read(len(NPY_MAGIC) + 2)
    header = _HEADERS.get(tuple(start[len(NPY_MAGIC) :]))
    if start[: len(NPY_MAGIC)] != NPY_MAGIC or header is None:
        wanted = "NumPy's format 1.0 or 2.0 (93 4e 55 4d 50 59)"
        raise UserError(front, f"data that starts with {start.hex(' ')}", wanted)
    with warnings.catch_warnings():  # NumPy warns of Python 2's headers, which read well
        warnings.simplefilter("ignore")
        shape, fortran, dtype = header(stream)
    if dtype.hasobject or dtype.kind not in "biufSU" or dtype.itemsize == 0:
        hint = "Objects need pickle, which can run code." if dtype.hasobject else ""
        raise UserError(
            front, f"an array of {shown(str(dtype))}", "bool, integers, floats, or text labels", hint
        )
    if not all(0 <= n < 1 << 48 for n in shape):
        raise UserError(front, "a header with impossible sizes", "sizes from 0 to 2^48")
    declared = f"header {list(shape)} {dtype.name}"
    data = payload(stream, math.prod(shape) * dtype.itemsize, front, declared)
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
