"""Whether a module's methods would notice that its class is another one, as far as their code tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType, FunctionType

from fastgan.fusion.source import CannotRewrite, source_of

_SAME = ("__name__", "__qualname__", "__module__", "__doc__")


def asks_for_class(function: FunctionType) -> bool:
    """Return whether a method may do something else in a subclass: by ``type(self)`` or ``self.__class__``.

    Calls of these, and what they share with subclasses, are no reason; nor are methods without source.
    """
    code = function.__code__
    names = {"type", "__class__"}
    if not code.co_argcount or not any(names & {*c.co_names} for c in _codes(code)):
        return False
    try:
        method = source_of(code)[1]
    except CannotRewrite:
        return False
    asked, harmless = [], []
    for node in ast.walk(method):
        if _is_class_of(node, code.co_varnames[0]):
            asked.append(node)
        elif isinstance(node, ast.Call):
            harmless.append(node.func)
        elif isinstance(node, ast.Attribute) and _is_shared(node):
            harmless.append(node.value)
    return any(all(node is not other for other in harmless) for node in asked)


def _is_shared(node: ast.Attribute) -> bool:
    """Whether an attribute is read that a class has in common with its fused subclass."""
    return isinstance(node.ctx, ast.Load) and (node.attr in _SAME or not node.attr.startswith("__"))


def _is_class_of(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type":
        owner = node.args[0] if len(node.args) == 1 else None
    elif isinstance(node, ast.Attribute) and node.attr == "__class__":
        owner = node.value
    else:
        return False
    return isinstance(owner, ast.Name) and owner.id == name


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
