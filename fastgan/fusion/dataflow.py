"""What becomes of a Linear's output, in a graph of torch.fx."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import fx, nn

from fastgan.fusion.call import obstacle, slope_of

# Functions, methods and modules, in lower case, whose result may be their argument or a part of it.
# fmt: off
_VIEWS = {
    "chunk", "contiguous", "data", "detach", "diagonal", "expand", "expand_as", "flatten", "getattr",
    "getitem", "mt", "moveaxis", "movedim", "narrow", "permute", "reshape", "reshape_as", "select", "split",
    "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "transpose", "unbind", "unflatten", "unfold",
    "unsqueeze", "view", "view_as",
    # these return their argument where there is nothing to do, such as dropout in evaluation
    "alphadropout", "double", "dropout", "dropout1d", "dropout2d", "float", "half", "identity", "to", "type",
}
# fmt: on
IN_PLACE = (
    operator.iadd,
    operator.iand,
    operator.ifloordiv,
    operator.imod,
    operator.imul,
    operator.ior,
    operator.ipow,
    operator.isub,
    operator.itruediv,
    operator.ixor,
)

# The fused op keeps its result, so it would have to compute it again.
_WRITTEN = "its result is changed in place, and the backward pass needs it"


class Fate(NamedTuple):
    """What follows a call of a Linear.

    Attributes:
        follower: the activation's node, where there is one and the two can be one op.
        what: what follows, in words.
        reason: why they cannot be one op, or "".
        kept: whether the reason is that something writes into what the fused op keeps for the backward pass.
    """

    follower: fx.Node | None
    what: str
    reason: str = ""
    kept: bool = False


def fate_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> Fate:
    """Return the fate of the output of the Linear that ``node`` calls; modules are by the graph's names."""
    linear, users = modules[node.target], list(node.users)
    if len(users) != 1:
        return Fate(None, "several" if users else "nothing", f"its output is used {len(users)} times")
    user = users[0]
    activation: Any = modules[user.target] if user.op == "call_module" else user.target
    what = "the return" if user.op == "output" else _name(activation)
    slope: Any = "neither LeakyReLU nor ReLU follows"
    if user.op != "output" and user.args[:1] == (node,):
        slope = slope_of(activation, user.args[1:], user.kwargs)
    if type(slope) is not float:
        return Fate(None, what, slope)
    if type(linear) is not nn.Linear:
        return Fate(None, what, f"the Linear is a {type(linear).__name__}")
    if reason := obstacle(linear):
        return Fate(None, what, f"the Linear has {reason}")
    if _is_written(user, modules):
        return Fate(None, what, _WRITTEN, kept=True)
    return Fate(user, what)


def _name(target: Any) -> str:
    if isinstance(target, nn.Module):
        return type(target).__name__
    return target if isinstance(target, str) else getattr(target, "__name__", repr(target))


def _is_written(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether a node's result, or a view of it, is changed in place."""
    for user in node.users:
        if user.op == "output":
            continue
        target: Any = modules[user.target] if user.op == "call_module" else user.target
        name = _name(target)
        if isinstance(target, nn.Module):
            writes = bool(getattr(target, "inplace", False))
        else:
            first = bool(user.args) and user.args[0] is node
            in_place = name.endswith("_") and not name.endswith("__")
            in_place = in_place or target in (*IN_PLACE, operator.setitem) or bool(user.kwargs.get("inplace"))
            writes = (first and in_place) or user.kwargs.get("out") is node
        if writes or (name.lower() in _VIEWS and _is_written(user, modules)):
            return True
    return False
