"""Tests whose Triton kernels are interpreted, in a process of their own.

Triton reads TRITON_INTERPRET when it is imported, and no process can have its kernels both interpreted and
compiled. A test marked ``interpreted`` therefore runs in a worker process that has it set, one for all tests;
its arguments are the values of ``parametrize`` and must be picklable. What it raises there is shown here. To
debug such a test, run it without a worker: ``TRITON_INTERPRET=1 pytest tests/kernels_triton``.

The interpreter runs a kernel's Python source on NumPy arrays, program by program. It shows wrong formulas,
indices and masks. It cannot show what the compiler makes of them: approximate division and exponential, the
order of sums in a warp, layouts, barriers, registers.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any

HERE = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels are interpreted in this very process."""


def run_interpreted(module: str, function: str, arguments: dict[str, Any]) -> None:
    """Call ``module.function(**arguments)`` in the worker; raise what it raised, as text.

    Raises:
        AssertionError: the call raised; the message is the worker's traceback.
    """
    worker = _worker()
    pickle.dump((sys.path, module, function, arguments), worker.stdin)
    worker.stdin.flush()
    try:
        failure = pickle.load(worker.stdout)
    except EOFError:
        code = worker.wait()
        _worker.cache_clear()
        failure = f"the interpreting process died with code {code}"
    if failure:
        raise AssertionError(failure)


@cache
def _worker() -> subprocess.Popen:
    # One thread: tiny products, and a machine that other tests use, too.
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    atexit.register(_stop, worker)
    return worker


def _stop(worker: subprocess.Popen) -> None:
    worker.stdin.close()
    worker.wait()
    worker.stdout.close()


def _serve() -> None:
    """Answer requests until the other side is gone: with None, or with a traceback."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a test prints is no answer
    while True:
        try:
            path, module, function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        sys.path[:] = path
        failure = None
        try:
            importlib.import_module("helpers.interpreter_mends")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                getattr(importlib.import_module(module), function)(**arguments)
        except BaseException:
            failure = traceback.format_exc()
        pickle.dump(failure, answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
