"""Which pairs of a module's methods may be a Linear and its activation, as far as names tell."""

from __future__ import annotations

import ast
import builtins
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from fastgan.fusion.call import is_activation
from fastgan.fusion.classes import methods, plain_class
from fastgan.fusion.source import CannotRewrite, Pair, Site, rewrite

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential, list, tuple, dict)
_UNKNOWN = object()  # known at run time only


def candidates(module: nn.Module) -> tuple[Site, ...]:
    """Return the sites of a module's class at which it may apply an activation to what a Linear returns.

    Raises:
        CannotRewrite: a forward without the source that it was made of.
    """
    sites: list[Site] = []
    for name, function in methods(plain_class(module)).items():

        def accept(pair: Pair, function: FunctionType = function) -> bool:
            linear = _value(pair.inner.func, module, function)
            fits = linear is _UNKNOWN or isinstance(linear, nn.Linear)
            if isinstance(pair.activation, ast.expr):
                activation = _value(pair.activation, module, function)
                fits = fits and (activation is _UNKNOWN or is_activation(activation))
            if fits:
                sites.append(pair.site)
            return fits

        try:
            rewrite(name, function, accept)
        except CannotRewrite:
            if name == "forward":
                raise
    return tuple(sorted({*sites}))


def _value(node: ast.expr, module: nn.Module, function: FunctionType) -> Any:
    """Return what a path such as ``self.layers[0]`` or ``F.relu`` stands for; nobody's code is run."""
    if isinstance(node, ast.Name):
        code = function.__code__
        if code.co_argcount and node.id == code.co_varnames[0]:
            return module
        if node.id in (*code.co_varnames, *code.co_cellvars):
            return _UNKNOWN
        if node.id in code.co_freevars:
            cell = function.__closure__[code.co_freevars.index(node.id)]
            try:
                return cell.cell_contents
            except ValueError:  # not assigned yet
                return _UNKNOWN
        return function.__globals__.get(node.id, getattr(builtins, node.id, _UNKNOWN))
    base = _value(node.value, module, function)
    if isinstance(node, ast.Subscript):
        try:
            return base[ast.literal_eval(node.slice)] if type(base) in _CONTAINERS else _UNKNOWN
        except (ValueError, LookupError, TypeError):
            return _UNKNOWN
    if isinstance(base, nn.Module):
        return base._modules.get(node.attr, vars(base).get(node.attr, _UNKNOWN))
    return vars(base).get(node.attr, _UNKNOWN) if isinstance(base, ModuleType) else _UNKNOWN
