"""What the compiled kernels of a case are made from, as a hash: whether a record of them is out of date.

A case's hash covers, of each of its launches, the kernel's source with that of all functions that it calls
(but not comments, docstrings and spacing), and what Triton specialises for: dtypes, alignment, numbers,
options. Nothing is compiled; all cases take seconds. It does not cover Triton, whose version the record has.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from functools import cache
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from bench.gpu_cases import launch_case
from bench.gpu_compile import TARGETS, instead_of_launches


def inputs_hash(case: str, target: str) -> str:
    """Return the hash of a case of ``gpu_cases`` on a target."""
    seen = hashlib.sha256()

    def record(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = [_specialised(value) for value in args], sorted(options.items())
        seen.update(f"{sources(kernel)}\n{given!r}\n".encode())

    with instead_of_launches(record, TARGETS[target]):
        launch_case(case)
    return seen.hexdigest()[:12]


def _specialised(value: Any) -> Any:
    """Return what Triton knows of an argument when it compiles, or more: a number's value."""
    if not isinstance(value, torch.Tensor):
        return value
    large = value.untyped_storage().nbytes() >= 1 << 31  # compiled otherwise for AMD
    return str(value.dtype), value.data_ptr() % 16 == 0, large


@cache
def sources(kernel: JITFunction) -> str:
    """Return the source of a kernel, of what it calls, and the constants of modules that they use."""
    found: dict[str, str] = {}
    _add_sources(kernel, found)
    return "\n".join(found[name] for name in sorted(found))


def _add_sources(function: JITFunction, found: dict[str, str]) -> None:
    name = f"{function.fn.__module__}.{function.fn.__qualname__}"
    if name in found:
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(function.fn)))
    body = tree.body[0].body
    if ast.get_docstring(tree.body[0]) is not None:
        del body[0]
    found[name] = ast.unparse(tree)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for global_name in sorted(used & function.fn.__globals__.keys()):
        value = function.fn.__globals__[global_name]
        if isinstance(value, JITFunction):
            _add_sources(value, found)
        elif not inspect.ismodule(value):
            found[f"{name}: {global_name}"] = f"{global_name} = {getattr(value, 'value', value)!r}"
