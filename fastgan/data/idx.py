"""IDX, the format of MNIST: a big-endian header, then the values; gzip or not (LeCun et al. 1998).

Header: two zero bytes, a dtype code, the number of dimensions, and one uint32 per dimension.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
from pathlib import Path

import numpy as np

from fastgan.data.reading import argument, decoding, payload, shown, slug
from fastgan.data.rows import build
from fastgan.data.schema import Data
from fastgan.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_FILE = re.compile(r"idx\d?([-_.]ubyte)?(\.gz)?$", re.IGNORECASE)
_ROLE = re.compile(r"(images|labels)([-_.]idx)\d([-_.]ubyte)(\.gz)?$", re.IGNORECASE)


def read(path: Path, argument: str) -> np.ndarray:
    """Read one IDX file, of 1 to 4 dimensions, in the dtype it declares (native byte order).

    Args:
        path: the file; gzip is told by its first bytes, not by its name.
        argument: the front of messages.

    Raises:
        UserError: wrong magic, unknown dtype, truncated or damaged gzip, more or fewer bytes than declared,
            an unreadable file.
    """
    with decoding(argument, "an IDX file"), open(path, "rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= 4:
            wanted = "an IDX file, which starts with 00 00, a dtype 08..0e and 01..04 dimensions"
            raise UserError(argument, f"a file that starts with {magic.hex(' ') or 'nothing'}", wanted)
        sizes = stream.read(4 * magic[3])
        if len(sizes) < 4 * magic[3]:
            raise UserError(argument, "a file cut short in its header", "a complete IDX file")
        shape = struct.unpack(f">{magic[3]}I", sizes)
        dtype = np.dtype(DTYPES[magic[2]])
        header = f"IDX header {' x '.join(map(str, shape))}"
        data = payload(stream, math.prod(shape) * dtype.itemsize, argument, header)
        array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_file(path: Path, source: str) -> Data:
    """Read a file of images or vectors, with the labels that lie beside it under the usual name.

    Raises:
        UserError: as :func:`read` and :func:`~fastgan.data.rows.build`; a file of labels.
    """
    role = _ROLE.search(path.name)
    name = path.name[: role.start()].strip("-_.") if role else path.name.split(".")[0]
    name = slug(name or path.resolve().parent.name)
    return load_pair(path, _partner(path, "labels"), argument(source), name, shown(source))


def find(folder: Path, source: str) -> tuple[Path, list[str]] | None:
    """Choose a folder's file of images: the only one, or else the only one with ``train`` in its name.

    Returns:
        The file and the names of those left out, or None where there is no such file.

    Raises:
        UserError: several files and no single training file; an unreadable folder.
    """
    with decoding(argument(source), "a folder"):
        files = sorted(p for p in folder.iterdir() if _FILE.search(p.name) and p.is_file())
    files = [p for p in files if "labels" not in p.name.lower() and not p.name.startswith(".")]
    # torchvision unpacks each file beside its .gz: these are one file
    files = [p for p in files if p.suffix != ".gz" or p.with_suffix("") not in files]
    if not files:
        return None
    chosen = files if len(files) == 1 else [p for p in files if "train" in p.name.lower()]
    if len(chosen) != 1:
        names = ", ".join(shown(p.name) for p in files[:4]) + ", ..." * (len(files) > 4)
        got = f"{len(files)} IDX files ({names})"
        wanted = "a single one, or a single one with 'train' in its name"
        raise UserError(argument(source), got, wanted, "Name the file itself.")
    return chosen[0], [p.name for p in files if p != chosen[0]]


def load_folder(folder: Path, source: str) -> Data | None:
    """Read the file that :func:`find` chooses, with its labels; None where there is none.

    Raises:
        UserError: as :func:`find`, :func:`read` and :func:`~fastgan.data.rows.build`.
    """
    if (found := find(folder, source)) is None:
        return None
    path, others = found
    text = f"{shown(source)} ({shown(path.name)}"
    text += f"; not used: {', '.join(map(shown, others))})" if others else ")"
    front = f"{argument(source)} ({shown(path.name)})"
    return load_pair(path, _partner(path, "labels"), front, slug(folder.resolve().name), text)


def load_pair(images: Path, labels: Path | None, argument: str, name: str, source: str) -> Data:
    """Read a file of images or vectors and, where given, its file of labels.

    Raises:
        UserError: as :func:`read` and :func:`~fastgan.data.rows.build`; a file of labels for ``images``.
    """
    array = read(images, argument)
    if array.ndim == 1:
        got = f"a file of {len(array):,} labels"
        other = _partner(images, "images")
        hint = f"Name {shown(other.name)}." if other else "Name the file of images."
        raise UserError(argument, got, "images, [N, height, width]", hint)
    numbers = None
    if labels is not None:
        argument += f" with {shown(labels.name)}"
        numbers = read(labels, argument)
    return build(array, numbers, argument=argument, name=name, source=source)


def _partner(path: Path, role: str) -> Path | None:
    """Return the file of ``role`` (``images`` or ``labels``) that belongs to ``path``, if it is there."""
    found = _ROLE.search(path.name)
    if found is None or found[1].lower() == role:
        return None
    bare = path.name[: found.start()] + role + found[2] + ("1" if role == "labels" else "3") + found[3]
    endings = (".gz", "") if found[4] else ("", ".gz")
    return next((p for p in (path.with_name(bare + end) for end in endings) if p.is_file()), None)
