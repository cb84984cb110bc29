"""A trained generator as PyTorch datasets: images computed instead of read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import (
    collate,
    collate_int_fn,
    collate_tensor_fn,
    default_collate_fn_map,
)

from fastgan.errors import brief
from fastgan.sampler import Sampler, whole
from fastgan.trained import TrainedGenerator
from fastgan.virtual.source import MOST_ROWS, generator_of, label_of

# Rows computed together for single ones: as many as take little longer than one; for an iteration over all,
# at most; and their bytes, where rows are so wide that this means fewer of them.
_BLOCKS = {"cpu": (16, 256, 2**22), "gpu": (1024, 8192, 2**24)}
_NOTHING = (0, np.empty(0), None)  # kept by a new dataset: first row, rows, labels
_WANTED = "whole numbers: one, or a list, array or tensor [B] of them"

Item = Any  # a row, or (row, label) of a conditional generator


class _Rows:
    """What both datasets share."""

    def __init__(
        self,
        file: TrainedGenerator | Path | str,
        length: int,
        seed: int | None,
        transform: Callable[[Tensor], Any] | None,
        where: Mapping[str, Any] | None,
        device: Any,
    ) -> None:
        generator, _ = generator_of(file)
        self.length = whole("length", length, 0, MOST_ROWS)
        self.transform, self.label = transform, label_of(generator, where)
        self.classes = list(generator.schema.classes) if generator.spec.classes else []
        self.sampler = Sampler(generator, seed, device=device)
        row_bytes = generator.schema.features * np.dtype(generator.schema.dtype).itemsize
        self.at_once, most, most_bytes = _BLOCKS["gpu" if self.sampler.engine == "cuda" else "cpu"]
        self.block = min(most, max(most_bytes // row_bytes, 1))

    def __len__(self) -> int:
        return self.length

    def batch(self, index: range | np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Return rows ``[B, *shape]``, of the data's own dtype, and labels int64 ``[B]`` or None."""
        numbers = np.asarray(index, dtype=np.int64)
        labels = self.sampler.labels_at(numbers)
        if self.label is not None:
            labels[:] = self.label
        if isinstance(index, range):
            rows = self.sampler.rows(index.start, len(index), labels)
        else:
            rows = self.sampler.take(numbers, labels)
        return torch.from_numpy(rows), None if labels is None else torch.from_numpy(labels)

    def items(self, index: range | np.ndarray) -> Sequence[Item]:
        """Return single rows, transformed, with their labels if there are some."""
        rows, labels = self.batch(index)
        if labels is None:
            return list(rows) if self.transform is None else [self.transform(row) for row in rows]
        if self.transform is None:
            return _Pairs(rows, labels)
        return list(zip(map(self.transform, rows), labels.tolist(), strict=True))

    def whole_batch(self, index: range | np.ndarray) -> Item:
        """Return rows ``[B, *shape]``, transformed at once, with labels int64 ``[B]`` if there are some."""
        rows, labels = self.batch(index)
        rows = rows if self.transform is None else self.transform(rows)
        return rows if labels is None else (rows, labels)


class _Pair(tuple):
    """A row and its label, by whose type PyTorch's collation knows that there is :func:`_collate`."""

    __slots__ = ()


class _Pairs(Sequence):
    """Pairs of rows and labels, made when somebody asks: a ``DataLoader`` takes the whole batch as it is."""

    def __init__(self, rows: Tensor, labels: Tensor) -> None:
        self.rows, self.labels = rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Pairs(self.rows[index], self.labels[index])
        return _Pair((self.rows[index], self.labels[index].item()))

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return zip(self.rows, self.labels.tolist(), strict=True)


def _collate(batch: Sequence[_Pair], *, collate_fn_map: dict) -> list[Tensor]:
    """Return what ``torch.utils.data.default_collate`` makes of pairs: for this type it asks here."""
    ours = isinstance(batch, _Pairs) and collate_fn_map.get(Tensor) is collate_tensor_fn
    if ours and collate_fn_map.get(int) is collate_int_fn:
        return [batch.rows, batch.labels]
    return collate(list(map(tuple, batch)), collate_fn_map=collate_fn_map)


default_collate_fn_map[_Pair] = _collate


class VirtualDataset(_Rows, Dataset):
    """Rows of a trained generator as a map-style dataset: item i is always the same row.

    An item is a tensor ``[*shape]`` of the data's own dtype (images: uint8, ``[height, width]`` or ``[height,
    width, 3]``), and with labels a pair ``(tensor, label)``, the label an index into ``classes``. Whole
    batches are computed at once (``__getitems__``), in any order at the same speed. As rows are independent
    of each other, ``shuffle=True`` changes nothing but their order.

    Works in a ``DataLoader`` with any number of workers, started by fork or spawn, and under any sampler.

    A list, array or tensor ``[B]`` of numbers gives a whole batch, tensors ``[B, *shape]`` and int64 ``[B]``,
    which nothing takes apart and puts together again: ``DataLoader(dataset, batch_size=None,
    sampler=batches)`` yields such batches, where ``batches`` is ``BatchSampler(RandomSampler(dataset), 128,
    drop_last=False)``.

    Args:
        file: a generator file, or a generator in memory.
        length: number of rows, to 2**62.
        seed: of the rows; None takes the generator's own. Another seed gives other rows.
        transform: is given a row and returns what becomes the item; for a list of numbers, a whole batch.
        where: ``{"label": 3}`` for rows of one class, named as in the data.
        device: that computes rows: ``cpu``, or ``cuda`` or ``cuda:1``; tensors come on the CPU. Workers of a
            ``DataLoader`` can use a GPU if they are started by spawn.

    Attributes:
        classes: names of the labels; empty without labels.

    Raises:
        UserError: the file is damaged, or there is no such label or device.
    """

    def __init__(
        self,
        file: TrainedGenerator | Path | str,
        length: int,
        seed: int | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        where: Mapping[str, Any] | None = None,
        device: Any = "cpu",
    ) -> None:
        super().__init__(file, length, seed, transform, where, device)
        self._kept = _NOTHING

    def __getitem__(self, index: int | list[int] | np.ndarray | Tensor) -> Item:
        """Return one item, or a whole batch for several numbers; a negative index counts from the end.

        Neighbours of one item are computed with it and kept, more of them the longer the next items come in
        order.

        Raises:
            IndexError: out of range.
            TypeError: no whole number.
        """
        if isinstance(index, list) or getattr(index, "ndim", 0):
            return self.whole_batch(self._numbers(index))
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(f"index: got {index!r}; wanted {_WANTED}") from None
        number += self.length if number < 0 else 0
        if not 0 <= number < self.length:
            raise self._out_of_range(index, index)
        first, rows, labels = self._kept
        at = number - first
        if not 0 <= at < len(rows):
            goes_on = len(rows) <= at < 2 * len(rows)
            size = min(2 * len(rows) if goes_on else self.at_once, self.block)
            first = number if goes_on else number // size * size
            block, drawn = self.batch(range(first, min(first + size, self.length)))
            rows, labels = block.numpy(), None if drawn is None else drawn.tolist()
            # All at once, since other threads may ask, too.
            self._kept, at = (first, rows, labels), number - first
        row = torch.from_numpy(rows[at].copy())
        value = row if self.transform is None else self.transform(row)
        return value if labels is None else (value, labels[at])

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Item]:
        """Return some items, computed together."""
        return self.items(self._numbers(indices))

    def _numbers(self, indices: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
        index = np.asarray(indices)
        got = f"{index.dtype} {list(index.shape)}"
        if index.ndim == 1 and index.dtype.kind in "ufO":  # NumPy has no integers for all of these together
            try:
                index = np.array([operator.index(i) for i in indices], object)
            except TypeError:
                raise TypeError(f"index: got {got}; wanted {_WANTED}") from None
        elif index.ndim != 1 or index.dtype.kind != "i":
            raise TypeError(f"index: got {got}; wanted {_WANTED}")
        if len(index) and not -self.length <= index.min() <= index.max() < self.length:
            raise self._out_of_range(index.min(), index.max())
        index = index.astype(np.int64)
        return np.where(index < 0, index + self.length, index)

    def _out_of_range(self, low: int, high: int) -> IndexError:
        got = " to ".join(brief(int(end)) for end in ((low,) if low == high else (low, high)))
        wanted = f"0 to {self.length - 1}" if self.length else "none: there are no rows"
        return IndexError(f"index: got {got}; wanted {wanted}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": _NOTHING}


class VirtualIterable(_Rows, IterableDataset):
    """The rows of :class:`VirtualDataset` as an iterable dataset, in their order.

    Workers of a ``DataLoader`` and replicas share the blocks of rows among them, so that all together yield
    every row once. With ``batch_size``, items are whole batches, ``[B, *shape]`` tensors, for
    ``DataLoader(..., batch_size=None)``: the fastest form, since nothing is taken apart and put together
    again.

    Args:
        file: as in :class:`VirtualDataset`.
        length: as there; of all replicas together.
        seed: as there.
        transform: as there; with ``batch_size`` it is given whole batches.
        where: as there.
        device: as there.
        batch_size: rows of a batch, or None for single rows.
        num_replicas: number of processes that train together.
        rank: which of them this is.
    """

    def __init__(
        self,
        file: TrainedGenerator | Path | str,
        length: int,
        seed: int | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        device: Any = "cpu",
        batch_size: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(file, length, seed, transform, where, device)
        self.batch_size = None if batch_size is None else whole("batch_size", batch_size, 1, 2**31)
        self.num_replicas = whole("num_replicas", num_replicas, 1, 2**31)
        self.rank = whole("rank", rank, 0, self.num_replicas - 1)

    def __len__(self) -> int:
        """Return the number of items of this replica: rows, or batches."""
        step, blocks = self._step(), self._blocks()
        mine = len(range(self.rank, blocks, self.num_replicas))
        if self.batch_size is not None:
            return mine
        has_last = mine and (blocks - 1) % self.num_replicas == self.rank
        return mine * step - (blocks * step - self.length if has_last else 0)

    def __iter__(self) -> Iterator[Item]:
        """Yield the items of this replica and worker."""
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        step = self._step()
        for block in range(
            self.rank + self.num_replicas * worker, self._blocks(), self.num_replicas * workers
        ):
            index = range(block * step, min((block + 1) * step, self.length))
            if self.batch_size is None:
                yield from self.items(index)
            else:
                yield self.whole_batch(index)

    def _step(self) -> int:
        return self.batch_size or self.block

    def _blocks(self) -> int:
        return -(-self.length // self._step())
