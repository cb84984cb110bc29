"""The one source of generated rows: row i of a generator and a seed is always the same row.

Three engines compute them: ``cpu``, the native sampler; ``reference``, plain PyTorch, where the native module
is absent; ``cuda``, on a GPU. They agree to rounding; each by itself gives a row the same bits whatever it is
asked for with, in whichever order, process or number of threads.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np

from fastgan import noise
from fastgan.errors import UserError, brief, nearest
from fastgan.lender import Lender
from fastgan.noise import Stream
from fastgan.sampler_cpu import Native, Reference
from fastgan.threads import usable_cpus
from fastgan.trained import TrainedGenerator

ENGINES = ("auto", "cpu", "reference")
_AT_ONCE_ON_A_GPU = 2  # each computes and copies at the same time
_KEPT = 4  # copies of the weights, of as many choices of features, if not more compute at once


class Sampler:
    """Rows and labels of a trained generator, by number.

    May be used by several threads, pickled, and used on both sides of a fork. As many threads compute at once
    as there are processors for; each of them has a copy of the weights then, and the others wait.

    Args:
        generator: whose rows.
        seed: of noise and labels; None takes the generator's own.
        features: int ``[n]``, which values of a row to compute; None for all. What is left out costs the
            native engine no time.
        engine: on the processor, which draws labels for a GPU, too: ``cpu``, ``reference``, or ``auto`` for
            the first of them that can run here.
        threads: of the native engine.
        device: ``cpu``, or ``cuda`` or ``cuda:1`` for rows from a GPU.

    Attributes:
        engine: ``cpu``, ``reference`` or ``cuda``.
        device: ``cpu``, or the GPU with its number.
        seed: as above.

    Raises:
        UserError: an unknown engine or device, or one that cannot run here.
    """

    def __init__(
        self,
        generator: TrainedGenerator,
        seed: int | None = None,
        *,
        features: np.ndarray | None = None,
        engine: str = "auto",
        threads: int = 1,
        device: Any = "cpu",
    ) -> None:
        self.generator, self.features, self.threads = generator, features, threads
        self.seed = whole("seed", generator.seed if seed is None else seed, 0, 2**63 - 1)
        self.engine = self._host = _choose(engine)
        self.device = str(device)
        self._ends = _ends(generator.label_counts)
        make = partial(Native if self.engine == "cpu" else Reference, generator, threads)
        at_once = max(usable_cpus() // threads, 1)
        if self.device != "cpu":
            from fastgan.sampler_cuda import OnDevice, usable

            self.engine, self.device = "cuda", usable(device)
            make, at_once = partial(OnDevice, generator, self.device), _AT_ONCE_ON_A_GPU
        self._computers = Lender(make, max(_KEPT, at_once), at_once)

    @property
    def batch_bytes(self) -> int:
        """Bytes of rows that are worth a call: few enough for a cache, enough to keep a GPU busy."""
        return 2**21 if self.device == "cpu" else 2**24

    def part(self, features: np.ndarray | None, seed: int | None = None) -> Sampler:
        """Return a sampler of chosen features, or of another seed, that shares with this one what computes.

        Args:
            features: as above, of whole rows.
            seed: as above; None takes this sampler's own.
        """
        part = copy.copy(self)
        part.features = features
        part.seed = self.seed if seed is None else whole("seed", seed, 0, 2**63 - 1)
        return part

    def rows(
        self,
        first: int,
        count: int,
        labels: int | np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return rows ``first`` to ``first + count - 1``.

        Args:
            first: number of the first row, from 0.
            count: how many; ``first + count`` is at most 2**63 - 1.
            labels: of conditional generators, int64 ``[count]`` or one for all; None draws them
                (:meth:`labels`).
            out: ``[count, features]``, C-contiguous, of the schema's dtype, to write the rows to.

        Returns:
            Stored values in the schema's dtype: ``[count, *shape]``, or ``[count, n]`` of chosen features.
        """
        first = whole("first", first, 0, 2**63 - 1)
        count = whole("count", count, 0, 2**63 - 1 - first)
        return self._rows(range(first, first + count), labels, out)

    def take(self, index: np.ndarray, labels: int | np.ndarray | None = None) -> np.ndarray:
        """Return rows in any order: as :meth:`rows`, for ``index``, integers ``[count]``."""
        return self._rows(_index(index), labels)

    def labels(self, first: int, count: int) -> np.ndarray | None:
        """Return the labels of rows from ``first`` on, int64 ``[count]``; None if there are none.

        A label is a pure function of (seed, row): the class that the first word of the row in the stream
        ``LABELS`` falls into, when the 2**32 words are shared out as the training rows were.
        """
        return self.labels_at(np.arange(first, first + count))

    def labels_at(self, index: np.ndarray) -> np.ndarray | None:
        """Return the labels of rows in any order: as :meth:`labels`, for ``index``, integers ``[count]``."""
        if self._ends is None:
            return None
        words = self._words(_index(index)).astype(np.uint64)  # as the ends are: NumPy converts slowly
        return np.searchsorted(self._ends, words, side="right").astype(np.int64, copy=False)

    def _words(self, index: np.ndarray) -> np.ndarray:
        if self._host == "reference":
            return noise.words_at(self.seed, Stream.LABELS, index, 1)[:, 0]
        from fastgan.kernels import cpu

        out = np.empty((len(index), 1), np.uint32)
        cpu.native().words(self.seed, int(Stream.LABELS), index, out)
        return out[:, 0]

    def _rows(
        self, index: range | np.ndarray, labels: int | np.ndarray | None, out: np.ndarray | None = None
    ) -> np.ndarray:
        schema, chosen = self.generator.schema, self.features
        labels = self._checked_labels(index, labels)
        shape = (len(index), schema.features if chosen is None else len(chosen))
        out = np.empty(shape, schema.dtype) if out is None else _checked_out(out, shape, schema.dtype)
        kind = None if chosen is None else np.asarray(chosen, np.int64).tobytes()
        with self._computers.lend(kind) as computer:
            computer.fill(self.seed, index, labels, out)
        return out.reshape(len(index), *schema.shape) if chosen is None else out

    def _checked_labels(
        self, index: range | np.ndarray, labels: int | np.ndarray | None
    ) -> np.ndarray | None:
        classes = self.generator.spec.classes
        if not classes:
            if labels is not None:
                raise UserError(
                    "labels", "labels", "none, since the generator was trained without --condition"
                )
            return None
        if labels is None:
            if isinstance(index, range):
                return self.labels(index.start, len(index))
            return self.labels_at(index)
        if np.shape(labels) not in ((), (len(index),)):
            raise UserError("labels", f"shape {list(np.shape(labels))}", f"one label, or [{len(index)}]")
        labels = np.full(len(index), labels, np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise UserError("labels", f"{labels.min()} to {labels.max()}", f"numbers from 0 to {classes - 1}")
        return labels


def whole(name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` as an int in ``low..high``, or raise a :class:`UserError` that names it."""
    wanted = f"a whole number from {low} to {high}"
    try:
        number = value.__index__()
    except (AttributeError, TypeError):  # an array of several numbers has one that refuses
        raise UserError(name, brief(value), wanted) from None
    if isinstance(value, (bool, np.bool_)) or not low <= number <= high:
        raise UserError(name, brief(value), wanted)
    return number


def _index(index: np.ndarray) -> np.ndarray:
    index = np.asarray(index)
    if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
        raise UserError("index", f"{index.dtype} {list(index.shape)}", "integers [count]")
    if len(index) and not 0 <= index.min() <= index.max() < 2**63 - 1:
        raise UserError("index", f"{index.min()} to {index.max()}", "row numbers from 0 to 2**63 - 2")
    return np.ascontiguousarray(index, np.int64)


def _ends(counts: tuple[int, ...]) -> np.ndarray | None:
    """Return the word that each class but the last ends before, ``[classes - 1]``; None without labels."""
    if not counts:
        return None
    total, ends = sum(counts), np.cumsum(counts)[:-1]
    return np.array([int(end) * 2**32 // total for end in ends], dtype=np.uint64)  # 2**32 is possible


def _checked_out(out: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        raise UserError("out", f"{out.dtype} {list(out.shape)}", f"contiguous {dtype} {list(shape)}")
    return out


def _choose(engine: str) -> str:
    if engine not in ENGINES:
        raise UserError("engine", f"'{engine}'", "one of " + ", ".join(ENGINES), nearest(engine, ENGINES))
    if engine != "reference":
        try:
            from fastgan.engines import require_kernels

            require_kernels()
            from fastgan.kernels import cpu

            cpu.native()
            return "cpu"
        except UserError:
            if engine == "cpu":
                raise
    return "reference"
