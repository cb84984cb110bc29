"""What all readers share: how a source is named in messages, and how untrusted bytes are taken in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

from fastgan.errors import UserError

CHUNK = 1 << 20
MOST_DEPTH = 32


def shown(text: str) -> str:
    """Return ``text`` as it may stand in a one-line message: quoted and escaped if it is not printable."""
    return text if text and text.isprintable() else ascii(text)


def argument(source: str) -> str:
    """Return how the user spelled the source, for the front of a :class:`UserError`."""
    return f"--data {shown(source)}"


def slug(name: str) -> str:
    """Return ``name`` as a folder name: letters, digits, dot, dash and underscore, at most 64 of them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "data"


def parse_json(text: bytes | str) -> Any:
    """Return the value of JSON text that anyone may have written.

    Raises:
        ValueError: it is no JSON, or has numbers that are not finite (``1e999`` is none, either), a name
            twice in one object, or lists and objects nested more than 32 deep, which would end in a
            RecursionError wherever the value is used.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} deep") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        nested = (item for item in level if isinstance(item, (dict, list)))
        items = (item.values() if isinstance(item, dict) else item for item in nested)
        if not (level := list(chain.from_iterable(items))):
            return value
    raise ValueError(f"nested more than {MOST_DEPTH} deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


@contextmanager
def decoding(argument: str, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises over a bad file into a :class:`UserError`.

    gzip, zipfile, NumPy's header parser and Pillow raise a dozen unrelated types over damaged input (among
    them SyntaxError, RuntimeError and tokenize's own), so no list of them would be complete.

    Args:
        argument: the front of the message.
        what: what is being read, such as ``"gzip data"``.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        got = f"{what} that cannot be read ({shown(' '.join(str(reason).split()))})"
        raise UserError(argument, got, "complete, readable data") from error


def payload(stream: BinaryIO, size: int, argument: str, header: str) -> bytearray:
    """Read exactly ``size`` bytes, which must be all that is left of ``stream``.

    Memory grows with what is really there, never with what a header claims. Reading on to the end also makes
    gzip and zip verify their checksums.

    Args:
        stream: at the first byte after the header.
        size: bytes that the header asks for.
        argument: the front of the message.
        header: what the header declares, for the message, such as ``"IDX header 10 x 28 x 28"``.

    Raises:
        UserError: fewer bytes or more.
    """
    wanted = f"the {size:,} bytes of its {header}"
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(CHUNK, size - len(data)))):
        data += chunk
    if len(data) < size:
        raise UserError(argument, f"only {len(data):,} bytes of data", wanted, "The file is cut short.")
    if stream.read(1):
        raise UserError(argument, f"more than {size:,} bytes of data", wanted, "Something trails the data.")
    return data
