"""The ``torch.library`` side of the ops: one name per op, and how its arguments are cast under autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import DeviceContext

LIBRARY = torch.library.Library("fastgan", "FRAGMENT")


def define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Define an op with one kernel function for CPU and CUDA tensors, and a fake one for shapes only."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(name, kernel, "CPU")
    LIBRARY.impl(name, kernel, "CUDA")
    torch.library.register_fake(f"fastgan::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.fastgan, name).default


def differentiate(name: str, function: type[torch.autograd.Function]) -> None:
    """Give an op the gradient and the vmap rule of its autograd.Function, whose forward calls the op."""
    full = f"fastgan::{name}"
    torch.library.register_autograd(
        full, function.backward, setup_context=function.setup_context, lib=LIBRARY
    )
    torch.library.register_vmap(full, function.vmap, lib=LIBRARY)


_TENSORS = (Tensor, torch.nn.Parameter)


def has_modes() -> bool:
    """Return whether a TorchFunctionMode, other than a default device, has a say in PyTorch's functions."""
    # Compilers take modes for themselves.
    if not torch._C._is_torch_function_mode_enabled() or torch.compiler.is_compiling():
        return False
    stack = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    return any(type(mode) is not DeviceContext for mode in stack)


def is_plain(tensor: Tensor) -> bool:
    """Return whether nobody but autograd listens: then a kernel may be called without the dispatcher.

    Not so for fake tensors, those that torch.func has wrapped, subclasses, batches of gradients, and under
    modes.
    """
    return (
        type(tensor) in _TENSORS
        and not has_modes()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and not is_batched(tensor)
    )


is_batched = torch._C._functorch.is_legacy_batchedtensor
"""Whether a tensor is a batch of gradients, as of ``torch.autograd.grad(is_grads_batched=True)``, of which
its shape says nothing. No op can have a rule for these, and functions of autograd see them unwrapped nowhere.
"""


def needs_operators(gradient: Tensor) -> bool:
    """Return whether only PyTorch's operators have a rule for what a backward pass was given.

    So for batches of gradients, and in forward mode: then a gradient may be a dual number.
    """
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    return not torch.compiler.is_dynamo_compiling() and is_batched(gradient)  # which Dynamo cannot ask


def is_recorded() -> bool:
    """Return whether torch.compile, torch.export or torch.jit.trace writes down which operators are called.

    Then only an op that comes by the dispatcher is written down.
    """
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def eager(function: type[torch.autograd.Function], kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs an op's kernel on plain tensors, with the derivative of its autograd.Function.

    The function itself, made for torch.func, takes 35 microseconds a call and the dispatcher 20 more;
    this one takes 6, and 1 where nothing needs a gradient.
    """

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            output = kernel(*_in_memory(args))
            function.setup_context(ctx, args, output)
            return output

        backward = function.backward

    def run(*args):
        graph, lazy = torch.is_grad_enabled(), False
        for value in args:
            if isinstance(value, Tensor):
                if graph and value.requires_grad:
                    return Eager.apply(*args)
                lazy = lazy or _is_lazy(value)
        return kernel(*_in_memory(args) if lazy else args)

    return run


def _is_lazy(tensor: Tensor) -> bool:
    """Return whether the values are not those in memory: the imaginary part of a conjugate has another sign,
    and a zero of automatic differentiation no memory. The dispatcher resolves that for its kernels."""
    return tensor.is_neg() or tensor._is_zerotensor()


def _in_memory(args: Sequence[Any]) -> list[Any]:
    """Return arguments whose tensors' values are in memory."""
    return [arg.clone() if isinstance(arg, Tensor) and _is_lazy(arg) else arg for arg in args]


def vectorize(plain: Callable[..., Any], in_dims: tuple, *args: Any) -> tuple[Any, Any]:
    """Return what a vmap rule returns, from PyTorch's rules for the operators that ``plain`` is made of."""
    out = torch.vmap(plain, in_dims)(*args)
    return out, 0 if isinstance(out, Tensor) else (0,) * len(out)


def autocast(name: str, to: Callable[[str], torch.dtype]) -> None:
    """Cast an op's floating-point tensors under autocast, as autocast does for PyTorch's own operators.

    Args:
        name: of the op.
        to: the dtype to cast to, from the device type. float64 tensors are left alone.
    """
    op = getattr(torch.ops.fastgan, name).default

    def kernel_for(device: str, key: torch._C.DispatchKey) -> Callable[..., Any]:
        def cast_and_call(*args):
            dtype = to(device)
            with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
                return op(*(cast(arg, device, dtype) for arg in args))

        return cast_and_call

    LIBRARY.impl(name, kernel_for("cpu", torch._C.DispatchKey.AutocastCPU), "AutocastCPU")
    LIBRARY.impl(name, kernel_for("cuda", torch._C.DispatchKey.AutocastCUDA), "AutocastCUDA")


def autocasts(device: str) -> bool:
    """Return whether autocast is on for a device of this type; PyTorch knows it of some types only."""
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)


def cast(value: Any, device: str, dtype: torch.dtype) -> Any:
    """Return a tensor that autocast on this device would cast, in ``dtype``; anything else as it is."""
    if isinstance(value, Tensor) and value.device.type == device and value.dtype in _CAST:
        return value.to(dtype)
    return value


_CAST = (torch.float32, torch.bfloat16, torch.float16)


def product_precision(backend: str) -> str:
    """Return what PyTorch may round float32 products to: ``none`` or ``ieee`` (nothing), ``tf32``, ``bf16``.

    Args:
        backend: ``cuda`` or ``mkldnn``.
    """
    matmul = getattr(getattr(torch.backends, backend), "matmul", None)
    found = getattr(matmul, "fp32_precision", None)
    # torch < 2.9 has one setting for all; later ones refuse to name it once a backend has its own.
    legacy = {"highest": "ieee", "high": "tf32", "medium": "bf16"}
    return found or legacy[torch.get_float32_matmul_precision()]
