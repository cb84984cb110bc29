"""The Triton kernels, or the reason why there are none.

Importing this package imports neither Triton nor torch. The launchers, plain functions on tensors, are loaded
at first use: ``from fastgan.kernels.triton import linear_leaky_relu_fwd``.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from fastgan.errors import UserError

LAUNCHERS = {
    "linear_leaky_relu_fwd": "dense",
    "linear_leaky_relu_bwd_input": "dense",
    "linear_leaky_relu_bwd_weight": "dense",
    "bce_with_logits_fwd_bwd": "bce",
    "bce_with_logits_partials": "bce",
    "sample_noise": "sample",
    "sample_layer": "sample",
}
"""Every launcher and the module that has it, next to its kernel."""

OLDEST = (3, 6)


def triton_version() -> str:
    """Return the version of Triton.

    Raises:
        UserError: Triton is missing, or older than ``OLDEST``.
    """
    wanted = "triton >= " + ".".join(map(str, OLDEST))
    hint = "Install it on Linux with: pip install 'fastgan[triton]'"
    try:
        found = version("triton")
        import_module("triton")
    except (PackageNotFoundError, ImportError) as error:
        raise UserError("the Triton kernels", f"no Triton ({error})", wanted, hint) from None
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST:
        raise UserError("the Triton kernels", f"triton {found}", wanted, hint)
    return found


def interpreted() -> bool:
    """Return whether the kernels are interpreted, on any device's tensors, rather than compiled for a GPU.

    Triton decides it when it first sees them: by the environment variable TRITON_INTERPRET=1.
    """
    triton_version()
    return import_module("fastgan.kernels.triton.launch").INTERPRETED


def __getattr__(name: str):
    if name not in LAUNCHERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    triton_version()
    return getattr(import_module(f"{__name__}.{LAUNCHERS[name]}"), name)
