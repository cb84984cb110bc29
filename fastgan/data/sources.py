"""From what the user wrote after ``--data`` to a :class:`Data`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fastgan.data import arrays, builtin, idx, images
from fastgan.data.reading import argument, decoding, shown
from fastgan.data.schema import Data
from fastgan.errors import UserError, nearest

BUILTIN = {"digits": builtin.digits, "mnist": builtin.mnist}
WANTED = "an IDX file (gzip or not), an .npy or .npz file, or a folder of IDX files or images"


def load(source: str) -> Data:
    """Read a data source.

    Args:
        source: ``digits``, ``mnist``, or a path: an IDX file (gzip or not), an ``.npy`` or ``.npz`` file, a
            folder with IDX files, a folder of images or of one subfolder of images per class. Files are told
            apart by their first bytes. Write ``./digits`` for a path of that name.

    Returns:
        Rows uint8 or float32 ``[N, features]``, labels int64 ``[N]`` or None, and their schema.

    Raises:
        UserError: an unknown name, or a path that cannot be read, is damaged, or holds nothing to train on.
    """
    if source in BUILTIN:
        return BUILTIN[source]()
    try:
        return _load_path(os.path.expanduser(source), source)
    except MemoryError as error:
        raise UserError(argument(source), "more data than memory can hold", "a smaller source") from error


def _load_path(name: str, source: str) -> Data:
    front = argument(source)
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError as error:
        wanted = f"{', '.join(BUILTIN)}, or the path of {WANTED}"
        raise UserError(front, "no such file or folder", wanted, nearest(source, BUILTIN)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(front, f"a path that cannot be used ({error})", f"the path of {WANTED}") from error
    path = Path(name)
    if stat.S_ISDIR(mode):
        return _load_folder(path, source)
    if not stat.S_ISREG(mode):  # a pipe would block
        raise UserError(front, "neither a file nor a folder", WANTED)
    with decoding(front, "a file"), open(path, "rb") as stream:
        magic = stream.read(6)
    if magic == arrays.NPY_MAGIC:
        return arrays.load_npy(path, source)
    if magic[:4] in arrays.NPZ_MAGICS:
        return arrays.load_npz(path, source)
    if magic[:2] in (b"\0\0", idx.GZIP_MAGIC):
        return idx.load_file(path, source)
    if path.suffix.lower() in images.SUFFIXES:
        raise UserError(front, "a single file with an image's suffix", "a folder of images")
    raise UserError(front, f"a file that starts with {magic.hex(' ')}" if magic else "an empty file", WANTED)


def _load_folder(path: Path, source: str) -> Data:
    for load_folder in (idx.load_folder, images.load_folder):
        if (data := load_folder(path, source)) is not None:
            return data
    with decoding(argument(source), "a folder"):
        names = sorted(p.name for p in path.iterdir())
    got = "an empty folder"
    if names:
        got = f"a folder with {', '.join(map(shown, names[:4]))}{', ...' * (len(names) > 4)}"
    wanted = f"IDX files, images ({' '.join(images.SUFFIXES)}), or a subfolder of images per class"
    arrays_there = any(n.endswith((".npy", ".npz")) for n in names)
    hint = "Name the .npy or .npz file itself." if arrays_there else ""
    raise UserError(argument(source), got, wanted, hint)
