"""A Linear and the activation after it: one op where that is the same, and one by one where it is not.

Fused models run through :func:`call`. It looks at the two modules at every call, as ``nn.Module.__call__``
does for hooks, so a model may change after it was fused: a hook, a parametrization, another slope or another
module in the same place takes effect as in any model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fastgan.ops import linear_leaky_relu
from fastgan.ops.library import has_modes

# What comes after a Linear: a module, a function of ``torch``, or the name of a method of tensors.
Activation = Callable | str

_RELUS = (F.relu, torch.relu, torch.relu_)
_LEAKY_RELUS = (F.leaky_relu, F.leaky_relu_)
ACTIVATIONS = (nn.LeakyReLU, nn.ReLU)
_FORWARDS = {cls: cls.forward for cls in (nn.Linear, *ACTIVATIONS)}  # some patch those of PyTorch's classes
RELU_METHODS = ("relu", "relu_")
# Subclasses of tensors (distributed, fake, of users) have their own idea of ``F.linear``.
_TENSORS = (Tensor, nn.Parameter)

# torch < 2.7 has none; there an export's tensors are fake, and so none of the above.
_is_exporting: Callable = getattr(torch.compiler, "is_exporting", lambda: False)

# Told of every place that ran one by one, while a model is traced; see fastgan.fusion.trace.
listener: Callable | None = None


def call(site: Any, activation: Activation, linear: Callable, x: Tensor, *args: Any, **options: Any) -> Any:
    """Return ``activation(linear(x), *args, **options)``.

    Args:
        site: which place in the code this is; only the listener needs it.
        activation: an :data:`Activation`, or anything else that can be called.
        linear: an ``nn.Linear``, or anything else that can be called.
        x: what ``linear`` takes.
        args, options: what else ``activation`` takes.

    Raises:
        Exception: whatever the two raise.
    """
    if type(linear) is nn.Linear and type(x) in _TENSORS and obstacle(linear) is None:
        slope = slope_of(activation, args, options)
        # What is exported or traced runs where there is no fastgan.
        exporting = torch.jit.is_tracing() or _is_exporting()
        if type(slope) is float and not exporting and not _has_any_global_hook() and not has_modes():
            weight, bias = operands(linear)
            if type(weight) in _TENSORS and (bias is None or type(bias) in _TENSORS):
                return linear_leaky_relu(x, weight, bias, slope)
    between = linear(x)
    if isinstance(activation, str):
        activation = getattr(between, activation)
        out = activation(*args, **options)
    else:
        out = activation(between, *args, **options)
    if listener is not None:
        listener(site, out)
    return out


def operands(linear: nn.Linear) -> tuple[Any, Any]:
    """Return ``linear.weight, linear.bias``, and in a seventh of the time where both are parameters.

    Raises:
        AttributeError: a Linear without one of them, as of its own forward.
    """
    attributes = linear.__dict__
    if "weight" not in attributes and "bias" not in attributes:
        try:
            parameters = attributes["_parameters"]
            return parameters["weight"], parameters["bias"]
        except KeyError:  # buffers
            pass
    return linear.weight, linear.bias


def slope_of(activation: Activation, args: tuple, options: dict) -> float | str:
    """Return the slope below zero that an activation has, or why there is none that can be fused."""
    if isinstance(activation, nn.Module):
        if type(activation) is nn.LeakyReLU:
            slope = activation.negative_slope
        elif type(activation) is nn.ReLU:
            slope = 0.0
        elif isinstance(activation, ACTIVATIONS):
            return f"the activation is a {type(activation).__name__}"
        else:
            return "neither LeakyReLU nor ReLU follows"
        reason = obstacle(activation)
        if reason is not None:
            return f"the {type(activation).__name__} has {reason}"
    elif any(activation is f for f in _LEAKY_RELUS):
        slope = args[0] if args else options.get("negative_slope", 0.01)
    elif any(activation is f for f in _RELUS) or activation in RELU_METHODS:
        slope = 0.0
    else:
        return "neither LeakyReLU nor ReLU follows"
    if (type(slope) is not float and not isinstance(slope, Real)) or not 0.0 <= slope < math.inf:
        return "its activation's slope is not a number >= 0"
    return float(slope)


def is_activation(thing: object) -> bool:
    """Whether something is of a kind that :func:`slope_of` has a slope for."""
    return isinstance(thing, ACTIVATIONS) or any(thing is f for f in (*_LEAKY_RELUS, *_RELUS))


def obstacle(module: nn.Module) -> str | None:
    """Return why a call of a Linear, LeakyReLU or ReLU, and no subclass, is more than PyTorch's forward."""
    if (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    ):
        return "a hook"
    cls = type(module)
    if (
        "forward" in module.__dict__
        or module._compiled_call_impl is not None
        or cls.forward is not _FORWARDS[cls]
    ):
        return "a forward of its own"
    return None
