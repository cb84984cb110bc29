"""Which operations of a step cannot be part of a CUDA graph, found while it runs eagerly, on any device.

A capture that fails tells little: the error comes from the driver, after the fact. :class:`Audit` sees every
operation on its way to the device, those of the backward pass included, and notes the user's own line.

What it cannot see: values that Python computed and that the graph then repeats for ever (a learning rate, a
loop count, a number from a ``random.Random`` or ``numpy.random.Generator`` of one's own), synchronisation
outside of PyTorch, and kernels that others launch (Triton's, say).
"""

from __future__ import annotations

import pickle
import random
import sys
import threading
import traceback
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SYNCHRONIZES = "waits for the device to bring a number to the host (item(), float(), an if on a tensor)"
_SIZE_UNKNOWN = "has an output whose size depends on the data, so the host must wait for it"

_FORBIDDEN = {
    "aten::_local_scalar_dense": _SYNCHRONIZES,
    "aten::item": _SYNCHRONIZES,
    "aten::is_nonzero": _SYNCHRONIZES,
    "aten::equal": _SYNCHRONIZES,
    "aten::allclose": _SYNCHRONIZES,
    "aten::nonzero": _SIZE_UNKNOWN,
    "aten::masked_select": _SIZE_UNKNOWN,
    "aten::_unique2": _SIZE_UNKNOWN,
    "aten::unique_dim": _SIZE_UNKNOWN,
    "aten::unique_consecutive": _SIZE_UNKNOWN,
    "aten::repeat_interleave": _SIZE_UNKNOWN,
    "aten::bincount": _SIZE_UNKNOWN,
    "aten::_linalg_check_errors": (
        "waits for the device to say whether a factorization succeeded; use inv_ex, cholesky_ex"
    ),
    "aten::_sparse_coo_tensor_with_dims_and_tensors": (
        "makes a sparse tensor, whose size depends on the data; use nn.Embedding(sparse=False)"
    ),
}
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_")
_MASKS = (torch.bool, torch.uint8)
_TORCH_GENERATOR = "torch on the cpu"
_TORCH, _HERE = Path(torch.__file__).parent, Path(__file__).parent


class Audit(TorchDispatchMode):
    """Context manager: record the operations in it, and what a CUDA graph could not hold.

    Attributes:
        ops: every operation's name, in order, such as ``aten::addmm``.
        problems: one sentence per operation that cannot be captured, with the line that asked for it.
        draws: for each of the host's random generators that :func:`host_randomness` names, the lines that
            drew from it. No problem where everything is on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []
        self.problems: list[str] = []
        self.draws: dict[str, list[str]] = {}

    def __enter__(self):
        self._thread, self._random = threading.get_ident(), _python_randomness()
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        self.ops.append(name)
        if name in _FORBIDDEN and kwargs.get("output_size") is None:  # repeat_interleave can be told the size
            self._note(name, _FORBIDDEN[name])
        if name in _INDEXED and any(i is not None and i.dtype in _MASKS for i in args[1]):
            self._note(name, f"with a mask {_SIZE_UNKNOWN}; use torch.where")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # A tensor of no dimensions is a number by another name, and becomes an argument of all other kernels.
        counts = name in ("aten::_to_copy", "aten::copy_")
        devices = {t.device.type for t in tensors if t.device.type != "cpu" or t.dim() > 0 or counts}
        if kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        if "cpu" in devices and len(devices) > 1:
            others = ", ".join(sorted(devices - {"cpu"}))
            self._note(name, f"copies between cpu and {others}; make the tensor on the device, once")
        if name == "aten::lift_fresh" and devices - {"cpu"}:  # what torch.tensor() ends with, after its copy
            self._note(name, f"copies numbers to {devices.pop()}; make the tensor once, or by torch.full")
        self._note_python_draws()
        result = func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._note_torch_draw(result)
        return result

    def _note(self, name: str, why: str) -> None:
        text = f"{self._line()}: {name} {why}"
        if text not in self.problems:
            self.problems.append(text)

    def _note_python_draws(self) -> None:
        """Note what was drawn since the last operation: most often in the line that asks for this one."""
        before, self._random = self._random, _python_randomness()
        for source in self._random:
            if self._random[source] != before.get(source):
                self.draws.setdefault(source, []).append(self._line())

    def _note_torch_draw(self, result: object) -> None:
        if any(isinstance(t, Tensor) and t.device.type == "cpu" for t in tree_leaves(result)):
            self.draws.setdefault(_TORCH_GENERATOR, []).append(self._line())

    def _line(self) -> str:
        """Return the user's line; a backward pass on a GPU has a thread of its own, without one."""
        stack = traceback.extract_stack()
        if threading.get_ident() != self._thread:
            stack = traceback.extract_stack(sys._current_frames()[self._thread])
        return user_line(stack)


def user_line(stack: traceback.StackSummary) -> str:
    """Return ``file:line: code`` of the innermost frame that is neither PyTorch's nor this package's."""
    for frame in reversed(stack):
        parents = Path(frame.filename).parents
        if _TORCH not in parents and _HERE not in parents:
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "somewhere"


def host_randomness() -> dict[str, object]:
    """Return the states, by name, of the random generators whose numbers a graph would freeze."""
    return {_TORCH_GENERATOR: torch.get_rng_state().tolist()} | _python_randomness()


def _python_randomness() -> dict[str, object]:
    states: dict[str, object] = {"random": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        states["numpy.random"] = pickle.dumps(numpy.random.get_state(legacy=False))
    return states
