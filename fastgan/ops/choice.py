"""Which implementation of an op runs, and why.

Auto takes the native code only where it was timed against PyTorch and won: on the processors, and with the
numbers of threads, of ``TIMED``. What was never timed could as well be slower.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan.errors import UserError, nearest
from fastgan.ops.library import is_plain

IMPLS = ("auto", "reference", "cpu", "triton")

FUSED_DTYPES = {
    "cpu": (torch.float32,),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}
"""What the kernels of each implementation compute in."""


class Timed(NamedTuple):
    """Up to where ``python -m bench.ops_choice --impl cpu`` has shown the native code to win.

    Attributes:
        inputs: of a dense layer: with more, the product takes nearly all of the time.
        threads: of PyTorch.
    """

    inputs: int
    threads: int


TIMED = {
    ("amd", "avx2"): Timed(inputs=256, threads=2),  # EPYC (Zen 3): MKL's products are as good as native ones
    ("intel", "avx512"): Timed(inputs=64, threads=2),  # Xeon (Sapphire Rapids): MKL's are up to 1.15x as fast
    ("intel", "amx"): Timed(inputs=512, threads=2),  # the same one: native products are as fast or faster
}
"""By the processor's maker and the instruction set in use; who has timed another kind may add it."""


class Choice(NamedTuple):
    """What ``impl="auto"`` runs, and why."""

    impl: str
    reason: str

    def __str__(self) -> str:
        return f"{self.impl}: {self.reason}"


def check_impl(impl: str) -> None:
    """Raise a UserError for an unknown implementation."""
    if impl not in IMPLS:
        raise UserError("impl", repr(impl), "one of " + ", ".join(IMPLS), nearest(str(impl), IMPLS))


def check_tensors(**given: Tensor | None) -> None:
    """Raise a UserError for the first argument that is neither a tensor nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise UserError(name, f"a {type(value).__name__}", "a tensor", f"Use torch.as_tensor({name}).")


def check_named(impl: str, *tensors: Tensor | None) -> None:
    """Raise a UserError unless the implementation that was asked for by name can run on these tensors."""
    given = [t for t in tensors if t is not None]
    if torch.autograd.forward_ad._current_level >= 0:
        raise UserError(
            "impl",
            f"{impl!r} under forward-mode differentiation (torch.func.jvp, jacfwd)",
            "auto or reference",
            "The fused kernels have derivatives in reverse mode only.",
        )
    for tensor in given:
        if tensor.dtype not in FUSED_DTYPES[impl]:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FUSED_DTYPES[impl])
            raise UserError(
                "impl", f"{impl!r} with {tensor.dtype} tensors", f"{names} for it", "auto takes any."
            )
        if tensor.layout != torch.strided:
            raise UserError(
                "impl", f"{impl!r} with a {tensor.layout} tensor", "dense tensors", "auto takes any."
            )
        if tensor.device != given[0].device:
            raise UserError("impl", f"tensors on {given[0].device} and {tensor.device}", "one device")
    check_device(impl, given[0].device)


def check_device(impl: str, device: torch.device) -> None:
    """Raise a UserError unless an implementation runs on tensors of this device."""
    if impl == "cpu":
        if device.type != "cpu":
            raise UserError(
                "impl", f"'cpu' with tensors on {device}", "tensors on the CPU", "Or impl='auto'."
            )
        from fastgan.kernels import cpu

        if not torch.compiler.is_compiling():  # which cannot look inside; the kernel says it when it runs
            cpu.native()
    elif impl == "triton" and device.type != "cuda":
        from fastgan.kernels import triton

        if device.type != "cpu" or not (torch.compiler.is_compiling() or triton.interpreted()):
            raise UserError(
                "impl",
                f"'triton' with tensors on {device}",
                "tensors on a CUDA device",
                "Start Python with TRITON_INTERPRET=1 to interpret the kernels on the CPU, not in bfloat16.",
            )


def by_name(impl: str) -> Choice:
    """Return what runs where an implementation was asked for by name, and can run."""
    return Choice(impl, "asked for by name")


RECORDED = Choice(
    "reference", "PyTorch's operators; torch.compile fuses them, and traces and exports run without fastgan"
)
_UNTIMED = Choice(
    "reference", "PyTorch's operators; no GPU has timed the Triton kernels (impl='triton' runs them)"
)
_WRAPPED = Choice(
    "reference", "PyTorch's operators; torch.func, a mode or a subclass has a say in each of them"
)
_AUTOCAST = Choice("reference", "PyTorch's operators; autocast has dtypes that no native kernel computes in")
_UNBUILT = Choice("reference", "PyTorch's operators; there is no native module here (python -m fastgan.info)")
_NOT_TIMED = "PyTorch's operators; nobody has timed native code (impl='cpu' runs it)"
_DEVICE = Choice("reference", "PyTorch's operators; there is no fused kernel for this device")


def why_not_native(*tensors: Tensor | None) -> Choice | None:
    """Return what auto takes if native code cannot run on these tensors, or should not; None if it may."""
    for tensor in tensors:
        if tensor is None:
            continue
        if not (tensor.is_cuda or tensor.is_cpu) or tensor.layout != torch.strided:
            return _DEVICE
        impl, code = ("triton", "Triton") if tensor.is_cuda else ("cpu", "native")
        if tensor.dtype not in FUSED_DTYPES[impl]:
            return Choice("reference", f"PyTorch's operators; no {code} kernel computes in {tensor.dtype}")
        if tensor.is_cuda:
            return _UNTIMED
        if not is_plain(tensor):
            return _WRAPPED
    if torch.autograd.forward_ad._current_level >= 0:
        return _WRAPPED
    if torch.is_autocast_enabled("cpu"):
        return _AUTOCAST
    kind = processor()
    if kind is None:
        return _UNBUILT
    if kind not in TIMED:
        return Choice("reference", f"{_NOT_TIMED} on such a processor ({' '.join(kind)})")
    if torch.get_num_threads() > TIMED[kind].threads:
        return Choice("reference", f"{_NOT_TIMED} with more than {TIMED[kind].threads} threads")
    return None


@cache
def processor() -> tuple[str, str] | None:
    """Return the key of ``TIMED``: the processor's maker and the native code's instruction set, if any."""
    from fastgan.kernels import cpu

    try:
        native = cpu.native()
    except UserError:
        return None
    return native.maker(), native.isa()


RULES: dict[Callable[..., Tensor], Callable[..., Choice]] = {}
"""For each public op the function that explains, of the implementation asked for and the op's arguments."""


def explain(op: Callable[..., Tensor], *args: Any, impl: str = "auto", **kwargs: Any) -> Choice:
    """Say what ``op(*args, impl=impl, **kwargs)`` would run, and why; nothing is computed.

    Args:
        op: ``linear_leaky_relu`` or ``bce_with_logits``.
        args, impl, kwargs: what would be given to it.

    Returns:
        The implementation and the reason; ``print`` shows both.

    Raises:
        UserError: another function, what is no tensor, an unknown ``impl``, or one that was asked for by name
            and cannot run: what the op itself would say.
    """
    if op not in RULES:
        names = ", ".join(rule.__name__ for rule in RULES)
        raise UserError("op", getattr(op, "__name__", repr(op)), f"one of {names}")
    check_impl(impl)
    return RULES[op](impl, *args, **kwargs)
