"""A generator's rows as columns: their names, their Arrow types, and what each has to have computed.

A column says which of the generator's outputs it is made from, and turns those into an Arrow array. Asking
for some columns computes their outputs and decodes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastgan.sampler import Sampler
from fastgan.trained import TrainedGenerator
from fastgan.virtual.source import need, numbers_of

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = need("pyarrow")

_MOST_BATCH = 2**16  # rows


@dataclass(frozen=True)
class Block:
    """Some rows, as far as they were computed.

    Attributes:
        index: their numbers, int64 ``[count]``.
        labels: int64 ``[count]``, or None if no column needs them.
        values: ``[outputs, count]``, an output in a row; None if no column needs any.
        places: for each output of the generator, its row in ``values``.
    """

    index: np.ndarray
    labels: np.ndarray | None
    values: np.ndarray | None
    places: dict[int, int]


@dataclass(frozen=True)
class RowNumber:
    """The number of the row, int64."""

    name: str = "row"
    outputs: Sequence[int] = ()
    needs_labels = False

    def field(self) -> pa.Field:
        """Return name and type."""
        return pa.field(self.name, pa.int64(), nullable=False)

    def array(self, block: Block) -> pa.Array:
        """Return the column of ``block``."""
        return pa.array(block.index)


@dataclass(frozen=True)
class Label:
    """The label: int64 where all names of classes are whole numbers, else a dictionary of the names."""

    classes: tuple[str, ...]
    name: str = "label"
    outputs: Sequence[int] = ()
    needs_labels = True

    def __post_init__(self) -> None:
        numbers = numbers_of(self.classes)
        object.__setattr__(self, "_numbers", None if numbers is None else np.array(numbers, np.int64))
        object.__setattr__(self, "_names", pa.array(self.classes))

    def field(self) -> pa.Field:
        """Return name and type."""
        text = pa.dictionary(pa.int16(), pa.string())
        return pa.field(self.name, text if self._numbers is None else pa.int64(), nullable=False)

    def array(self, block: Block) -> pa.Array:
        """Return the column of ``block``."""
        if self._numbers is not None:
            return pa.array(self._numbers[block.labels])
        return pa.DictionaryArray.from_arrays(pa.array(block.labels.astype(np.int16)), self._names)


@dataclass(frozen=True)
class Image:
    """All pixels of an image in one list of fixed size, row by row; the shape is in the field's metadata."""

    shape: tuple[int, ...]
    dtype: str
    name: str = "image"
    needs_labels = False

    @property
    def outputs(self) -> Sequence[int]:
        """All outputs."""
        return range(int(np.prod(self.shape)))

    def field(self) -> pa.Field:
        """Return name and type."""
        item = pa.field("item", pa.from_numpy_dtype(self.dtype), nullable=False)
        metadata = {"shape": str(list(self.shape))}
        return pa.field(self.name, pa.list_(item, len(self.outputs)), nullable=False, metadata=metadata)

    def array(self, block: Block) -> pa.Array:
        """Return the column of ``block``."""
        pixels = np.ascontiguousarray(block.values.T).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(pixels), type=self.field().type)


@dataclass(frozen=True)
class Feature:
    """One value of a plain row."""

    output: int
    dtype: str
    needs_labels = False

    @property
    def name(self) -> str:
        """``x0``, ``x1`` and so on."""
        return f"x{self.output}"

    @property
    def outputs(self) -> Sequence[int]:
        """The one output."""
        return (self.output,)

    def field(self) -> pa.Field:
        """Return name and type."""
        return pa.field(self.name, pa.from_numpy_dtype(self.dtype), nullable=False)

    def array(self, block: Block) -> pa.Array:
        """Return the column of ``block``."""
        return pa.array(block.values[block.places[self.output]])


Column = RowNumber | Label | Image | Feature


def columns_of(generator: TrainedGenerator) -> dict[str, Column]:
    """Return the columns of a generator's rows by name, in order."""
    schema = generator.schema
    columns: list[Column] = [RowNumber()]
    if generator.spec.classes:
        columns.append(Label(schema.classes))
    if schema.kind == "image":
        columns.append(Image(schema.shape, schema.dtype))
    else:
        columns += [Feature(i, schema.dtype) for i in range(schema.features)]
    return {column.name: column for column in columns}


class Reader:
    """Computes some columns of a generator's rows.

    Args:
        sampler: of whole rows; what computes them is shared with it.
        label: of all rows, or None.
        columns: which, in their order.

    Attributes:
        has_values: whether any column needs the generator.
        batch_rows: rows that are worth a call.
    """

    def __init__(self, sampler: Sampler, label: int | None, columns: list[Column]) -> None:
        self.columns, self.label = columns, label
        self.schema = pa.schema([column.field() for column in columns])
        outputs = sorted({i for column in columns for i in column.outputs})
        some = None if len(outputs) == sampler.generator.spec.features else np.array(outputs, dtype=np.int64)
        self._places = {output: place for place, output in enumerate(outputs)}
        self.has_values, self._is_list = bool(outputs), any(isinstance(c, Image) for c in columns)
        self._needs_labels = any(column.needs_labels for column in columns)
        self._sampler = sampler.part(some)
        self.batch_rows = _batch_rows(self.schema, sampler.batch_bytes)

    def batch(self, index: range | np.ndarray) -> pa.RecordBatch:
        """Return the columns of the rows ``index``."""
        is_range = isinstance(index, range)
        numbers = np.arange(index.start, index.stop) if is_range else index
        labels = values = None
        if self.label is not None:
            labels = np.full(len(numbers), self.label)
        elif self._needs_labels or self.has_values:
            labels = self._sampler.labels_at(numbers)
        if self.has_values:
            rows = (
                self._sampler.rows(index.start, len(index), labels)
                if is_range
                else self._sampler.take(index, labels)
            )
            values = rows.reshape(len(numbers), len(self._places)).T
            if not self._is_list:
                values = np.ascontiguousarray(values)
        block = Block(numbers, labels, values, self._places)
        return pa.record_batch([column.array(block) for column in self.columns], schema=self.schema)


def _batch_rows(schema: pa.Schema, most_bytes: int) -> int:
    rows = min(most_bytes // sum(_bytes(field.type) for field in schema), _MOST_BATCH)
    return max(rows, 1) if rows < 256 else rows // 256 * 256


def _bytes(kind: pa.DataType) -> int:
    if isinstance(kind, pa.FixedSizeListType):
        return kind.list_size * _bytes(kind.value_type)
    return kind.index_type.bit_width // 8 if isinstance(kind, pa.DictionaryType) else kind.bit_width // 8
