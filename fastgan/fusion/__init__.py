"""``fuse`` and ``unfuse``: anyone's model with each Linear and the LeakyReLU or ReLU after it as one op."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from fastgan.errors import UserError
from fastgan.fusion.classes import fused_class, plain_class, set_class
from fastgan.fusion.places import Place, analyse

__all__ = ["Place", "fuse", "places", "unfuse"]

Model = TypeVar("Model", bound=nn.Module)


def fuse(model: Model, inplace: bool = True, verbose: bool = False) -> Model:
    """Run each Linear and the LeakyReLU or ReLU after it as one op, where that gives the same numbers.

    Fused are pairs in an ``nn.Sequential``, at any depth, and in hand-written methods, such as
    ``F.leaky_relu(self.fc(x), 0.2)`` or ``self.act(self.fc(x))``. Methods keep whatever else they do:
    torch.fx follows every Linear's output on a copy of the model, and only the expressions that it found are
    then rewritten, from the source. Parameters, children, hooks and ``state_dict`` keys are not touched, so
    old checkpoints load and optimizers keep working.

    A fused pair is looked at again whenever it runs: with a hook, a parametrization, a slope below 0, a
    patched ``nn.Linear.forward`` or under a ``TorchFunctionMode`` it runs as two modules. ``torch.export``,
    ``torch.onnx`` and ``torch.jit`` see the model as it was.

    What torch.fx cannot trace is left alone: one ``if`` on data, or on an argument whose default is not None,
    costs its forward all fusions; Sequentials and modules that it calls keep theirs. Left alone, too, is what
    would notice that its class is another: by ``type(self) is``, ``super(type(self), self)`` or
    ``self.__class__.n = 1`` in its code, or as traces in training and in evaluation tell. Nobody sees a
    function outside of the class that asks for it (a count of calls by ``type(module)``) and leaves nothing
    in the graph, nor what one asks for that is called by a forward which torch.fx cannot trace; nor a class
    method that the forward does not name: one that compares ``cls`` or counts on it gets the class made here.

    A fused pair's result may be changed in place (``h += skip``), as LeakyReLU's may: the backward pass,
    which may need the result, then computes it again. Where torch.fx sees such a change, the pair is left
    alone. Three things differ from PyTorch. A LeakyReLU of slope 0 is ReLU: 0 and not NaN at minus infinity.
    A result that is changed by ``.data`` has wrong gradients, as after ReLU. And ``torch.load`` of a whole
    fused model needs ``weights_only=False``: save its ``state_dict``, or ``unfuse`` it first.

    Args:
        model: any module. The forward of a copy runs a few times with symbols in place of tensors; it should
            have no effects outside of the module.
        inplace: change ``model`` itself, or else a copy that shares nothing with it.
        verbose: print every Linear with what follows it, and where it is left alone the reason.

    Returns:
        The fused model. Modules that changed have a class of the same name that is a subclass of their own.

    Raises:
        UserError: anything but a module, or, for a copy, one that cannot be copied.
    """
    _check(model)
    if not inplace:
        model = _copy(model)
    unfuse(model)
    analysis = analyse(model)
    for name, fused in analysis.fused.items():
        module = model.get_submodule(name)
        set_class(module, fused_class(type(module), *fused))
    if verbose:
        print(_table(model, analysis.places))
    return model


def unfuse(model: Model) -> Model:
    """Undo :func:`fuse`, in place: every module has the class that it had.

    Raises:
        UserError: anything but a module.
    """
    _check(model)
    for module in model.modules():
        set_class(module, plain_class(module))
    return model


def places(model: nn.Module) -> list[Place]:
    """Return what :func:`fuse` would print with ``verbose``; the model stays as it is.

    Raises:
        UserError: anything but a module.
    """
    _check(model)
    return analyse(model).places


def _check(model: nn.Module) -> None:
    if isinstance(model, type) and issubclass(model, nn.Module):
        hint = f"Make one of the class first, as {model.__name__}(...)."
        raise UserError("model", f"the class {model.__name__}", "an nn.Module", hint)
    if not isinstance(model, nn.Module):
        raise UserError("model", type(model).__name__, "an nn.Module")


def _copy(model: Model) -> Model:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        got = f"a {type(model).__name__} that PyTorch does not copy ({type(error).__name__}: {error})"
        raise UserError("model", got, "one that copy.deepcopy copies", "Or use inplace=True.") from error


def _table(model: nn.Module, found: list[Place]) -> str:
    fused = sum(not place.reason for place in found)
    lines = [f"{type(model).__name__}: {fused} fused, {len(found) - fused} left alone"]
    rows = [(place.name or "(model)", place.what, place.reason or "fused") for place in found]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    lines += [f"  {name:{widths[0]}}  {what:{widths[1]}}  {reason}" for name, what, reason in rows]
    return "\n".join(lines)
