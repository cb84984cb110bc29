"""A sanitizer for interpreted Triton kernels: what no comparison of results can show.

    with Sanitizer(inputs={"x": x, "weight": weight, "bias": bias}, outputs={"y": y}) as found:
        linear_leaky_relu_fwd(x, weight, bias, y, 0.2)
    assert found == []

Every load and store of every program is checked against the elements of the tensors that the kernel was
given. Each tensor's pointer is replaced by an address of its own, 2**44 bytes from the next, so that an
access far beyond x cannot end up in y unseen, and memory that is not there is never touched. Found are:

- loads and stores outside of a tensor, the gaps of a strided view included;
- stores to inputs;
- one element stored by two programs, or twice by one ``tl.store`` of one program;
- an element loaded by one program and stored by another (in whichever order the interpreter ran them);
- atomics, which make float sums depend on the order of programs;
- elements of the outputs that no program stored.

Blind spots: programs run one after the other and each as a single thread, so a missing barrier between the
warps of one program, or between the stages of a pipeline, cannot show; nor can anything else that the
compiler adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle

SPACING = 1 << 44
NOBODY, MANY = -1, -2


class Sanitizer:
    """A context manager that yields the list of findings, each a line, over all launches inside.

    Args:
        inputs: the tensors that kernels must leave as they are, by name; outputs share no memory with them.
        outputs: the tensors of which every element must be stored. A launcher's own workspace is neither.
    """

    def __init__(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self.found: list[str] = []
        self._inputs = {name: _addresses(tensor) for name, tensor in inputs.items()}
        self._outputs = {name: _addresses(tensor) for name, tensor in outputs.items()}
        everything = [*self._inputs.values(), *self._outputs.values()]
        for name, output in self._outputs.items():
            if any(_among(output, other).any() for other in everything if other is not output):
                raise ValueError(f"{name} shares memory with another tensor: stores could not be told apart")
        self._stored = {name: np.zeros(len(a), bool) for name, a in self._outputs.items()}
        self._arguments: list[tuple[int, np.ndarray]] = []
        self._originals: list[tuple[object, str, Any]] = []

    def __enter__(self) -> list[str]:
        builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
        self._patch(executor, "__call__", self._launch)
        self._patch(executor, "_restore_args_dev", lambda original, *_: None)  # CPU tensors: nothing to copy
        self._patch(interpreter, "_implicit_cvt", self._argument)
        self._patch(builder, "create_masked_load", self._load)
        self._patch(builder, "create_masked_store", self._store)
        for name in ("create_atomic_rmw", "create_atomic_cas"):
            self._patch(builder, name, self._atomic)
        return self.found

    def __exit__(self, *exception: object) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)
        if exception[0] is None:
            for name, stored in self._stored.items():
                if not stored.all():
                    missing = np.count_nonzero(~stored)
                    self.found.append(f"{name}: {missing} of {len(stored)} elements not stored")

    def _patch(self, owner: object, name: str, method: Any) -> None:
        original = getattr(owner, name)
        self._originals.append((owner, name, original))
        # A plain function, so that where the owner is a class, ``self`` comes after the original.
        setattr(owner, name, lambda *args, **kwargs: method(original, *args, **kwargs))

    def _say(self, line: str) -> None:
        line = f"{self._kernel}{tuple(interpreter.interpreter_builder.grid_idx)}: {line}"
        if line not in self.found:
            self.found.append(line)

    # ---- a launch

    def _launch(self, original, executor, *args, **kwargs):
        self._kernel = executor.fn.__name__
        self._arguments = []
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        # One table of the bytes' addresses over all tensors: some may overlap, as outputs written in place.
        self._elements = np.unique(np.concatenate([_addresses(t) for t in given])) if given else np.zeros(0)
        self._writer = np.full(len(self._elements), NOBODY, np.int64)
        self._reader = np.full(len(self._elements), NOBODY, np.int64)
        return original(executor, *args, **kwargs)

    def _argument(self, original, argument):
        converted = original(argument)
        if isinstance(argument, Tensor):
            self._arguments.append((argument.data_ptr(), _addresses(argument)))
            converted.handle.data = np.array([len(self._arguments) * SPACING], np.uint64)
        return converted

    # ---- an access

    def _load(self, original, builder, pointers, mask, *rest):
        real, inside = self._resolve("load", pointers, mask)
        program, elements = self._program(), self._index(real[inside])
        others = self._writer[elements]
        if ((others != NOBODY) & (others != program)).any():
            self._say("loads what another program stores")
        readers = self._reader[elements]
        self._reader[elements] = np.where((readers == NOBODY) | (readers == program), program, MANY)
        return original(builder, _handle(real, pointers), _handle(inside, mask), *rest)

    def _store(self, original, builder, pointers, value, mask, *rest):
        real, inside = self._resolve("store", pointers, mask)
        addresses = real[inside]
        program, elements = self._program(), self._index(addresses)
        if len(np.unique(elements)) < len(elements):
            self._say("stores an element twice at once")
        others, readers = self._writer[elements], self._reader[elements]
        if ((others != NOBODY) & (others != program)).any():
            self._say("stores what another program stores")
        if ((readers != NOBODY) & (readers != program)).any():
            self._say("stores what another program loads")
        self._writer[elements] = program
        for name, output in self._outputs.items():
            ours = addresses[_among(addresses, output)]
            self._stored[name][np.searchsorted(output, ours)] = True
        for name, constant in self._inputs.items():
            if _among(addresses, constant).any():
                self._say(f"stores to {name}, an input")
        return original(builder, _handle(real, pointers), value, _handle(inside, mask), *rest)

    def _atomic(self, original, builder, *arguments):
        self._say("an atomic operation")
        everything = TensorHandle(np.ones(1, bool), tl.int1)
        translated = [
            _handle(self._resolve("atomic", a, everything)[0], a) if _is_pointer(a) else a for a in arguments
        ]
        return original(builder, *translated)

    def _resolve(self, verb: str, pointers, mask) -> tuple[np.ndarray, np.ndarray]:
        """Return real addresses, and which of them are wanted and exist."""
        data = pointers.data.astype(np.uint64)
        wanted = np.broadcast_to(mask.data, data.shape).copy()
        number = ((data + np.uint64(SPACING // 2)) // np.uint64(SPACING)).astype(np.int64)
        real, inside = np.zeros_like(data), np.zeros(data.shape, bool)
        for n in np.unique(number[wanted]):
            here = wanted & (number == n)
            if not 1 <= n <= len(self._arguments):
                continue
            start, elements = self._arguments[n - 1]
            # Unsigned arithmetic wraps, so an offset below zero comes out right.
            address = data - np.uint64(int(n) * SPACING) + np.uint64(start)
            exists = here & _among(address, elements)
            real[exists] = address[exists]
            inside |= exists
        outside = np.count_nonzero(wanted & ~inside)
        if outside:
            self._say(f"{verb} out of bounds, {outside} elements")
        return real, inside

    def _program(self) -> int:
        builder = interpreter.interpreter_builder
        (x, y, z), (nx, ny, _) = builder.grid_idx, builder.grid_dim
        return x + nx * (y + ny * z)

    def _index(self, addresses: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._elements, addresses)


def _addresses(tensor: Tensor) -> np.ndarray:
    """Return the sorted address of every element, each once."""
    offsets = np.zeros(1, np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = (offsets[:, None] + stride * np.arange(size, dtype=np.int64)[None, :]).reshape(-1)
    return np.unique(offsets * tensor.element_size() + tensor.data_ptr()).astype(np.uint64)


def _among(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return which values are in a sorted table."""
    if not len(table):
        return np.zeros(values.shape, bool)
    return table[np.minimum(np.searchsorted(table, values), len(table) - 1)] == values


def _handle(data: np.ndarray, like: TensorHandle) -> TensorHandle:
    return TensorHandle(data, like.dtype)


def _is_pointer(value: object) -> bool:
    return isinstance(value, TensorHandle) and value.dtype.scalar.is_ptr()
