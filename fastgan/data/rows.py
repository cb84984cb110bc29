"""From any array to the rows of a :class:`Data`: the checks that every file format shares."""

from __future__ import annotations

import numpy as np

from fastgan.data.reading import shown
from fastgan.data.schema import Data, Schema
from fastgan.errors import UserError

MAX_CLASSES = 1024
LAYOUTS = "[N, features], [N, height, width] or [N, height, width, 1 or 3]"


def build(array: np.ndarray, labels: np.ndarray | None, *, argument: str, name: str, source: str) -> Data:
    """Check ``array`` and ``labels`` and make them a :class:`Data`.

    Args:
        array: ``[N, F]``, ``[N, H, W]`` or ``[N, H, W, C]`` with C 1 or 3, of bool (becomes 0 and 255),
            integers from 0 to 255 (become uint8) or floats (become float32); one channel is dropped.
        labels: ``[N]`` or ``[N, 1]`` of integers, bool or text, or None; renumbered 0..C-1 in sorted order.
        argument: the front of messages.
        name: as in :class:`Data`.
        source: as in :class:`Data`.

    Raises:
        UserError: another layout or dtype, no rows or no features, values out of range or not finite, labels
            that do not pair up with the rows.
    """
    shape = _row_shape(array, argument)
    rows = np.ascontiguousarray(_stored(array, argument).reshape(len(array), -1))
    numbers, classes = (None, ()) if labels is None else _classes(labels, len(rows), argument)
    kind = "array" if len(shape) == 1 else "image"
    return Data(rows, numbers, Schema(kind, shape, rows.dtype.name, classes), name, source)


def _row_shape(array: np.ndarray, argument: str) -> tuple[int, ...]:
    """Return the shape of one row after the layout was checked."""
    got = f"an array of shape {list(array.shape)}"
    if not 2 <= array.ndim <= 4:
        raise UserError(
            argument, got, LAYOUTS, "Use .reshape(-1, 1) for one feature per row." if array.ndim == 1 else ""
        )
    if array.shape[0] == 0:
        raise UserError(argument, f"{got}, which has no rows", "at least one row")
    if array.size == 0:
        raise UserError(argument, f"{got}, whose rows are empty", "at least one value per row")
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        first = array.shape[1] in (1, 3)
        hint = "Move the channels last: .transpose(0, 2, 3, 1)." if first else ""
        raise UserError(argument, got, LAYOUTS, hint or "Drop the alpha channel: array[..., :3].")
    return array.shape[1:3] if array.ndim == 4 and array.shape[3] == 1 else array.shape[1:]


def _stored(array: np.ndarray, argument: str) -> np.ndarray:
    """Return ``array`` as uint8 or float32, or refuse its dtype or its values."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return np.where(array, np.uint8(255), np.uint8(0))
    if kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            got = f"{array.dtype.name} values from {low} to {high}"
            raise UserError(argument, got, "integers from 0 to 255", "Rescale them, or save them as float32.")
        return array.astype(np.uint8)
    if kind == "f":
        _refuse_where(~np.isfinite(array), "NaN or infinite values", "finite numbers", argument)
        with np.errstate(all="ignore"):  # overflow is what the next line looks for; underflow is harmless
            rows = array.astype(np.float32)
        _refuse_where(np.isinf(rows), "values too large for float32", "numbers below 3.4e38", argument)
        return rows
    got = f"an array of {shown(str(array.dtype))}"
    raise UserError(argument, got, "bool, integers from 0 to 255, or floats")


def _refuse_where(bad: np.ndarray, what: str, wanted: str, argument: str) -> None:
    if bad.any():
        first = [int(i) for i in np.unravel_index(bad.argmax(), bad.shape)]
        raise UserError(argument, f"{np.count_nonzero(bad):,} {what}, the first at {first}", wanted)


def _classes(labels: np.ndarray, count: int, argument: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels as int64 ``[count]`` in 0..C-1, and the C names in sorted order."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        got = f"labels of shape {list(labels.shape)}"
        raise UserError(argument, got, f"labels of shape [{count}]", "One-hot labels need .argmax(axis=1).")
    if len(labels) != count:
        got = f"{count:,} rows with {len(labels):,} labels"
        raise UserError(argument, got, "one label per row")
    if labels.dtype.kind not in "biuSU":
        got = f"labels of {shown(str(labels.dtype))}"
        raise UserError(argument, got, "integers or text", "Save them with .astype(int).")
    try:
        if labels.dtype.kind == "S":
            labels = np.char.decode(labels, "utf-8")
        values, numbers = np.unique(labels, return_inverse=True)
        names = tuple(str(v) for v in values[: MAX_CLASSES + 1])
    except ValueError as error:  # bytes that are no UTF-8, or code points that are no Unicode
        raise UserError(argument, "labels that are not valid text", "integers or text") from error
    if len(values) > MAX_CLASSES:
        raise UserError(argument, f"{len(values):,} different labels", f"at most {MAX_CLASSES:,} classes")
    if bad := [name for name in names if not name.isprintable()]:
        raise UserError(argument, f"the class name {bad[0]!a}", "printable class names")
    return numbers.reshape(-1).astype(np.int64), names
