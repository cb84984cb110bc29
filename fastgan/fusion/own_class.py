"""Whether a class would notice that a module's class is another one, as far as its code tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache, partialmethod
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from fastgan.fusion.source import CannotRewrite, source_of

_SAME = ("__name__", "__qualname__", "__module__", "__doc__")
_WRAPPERS = (property, classmethod, staticmethod, cached_property, partialmethod, type(lru_cache(len)))
_WRAPPED = ("__wrapped__", "fget", "fset", "fdel", "func")


@cache
def asking(cls: type[nn.Module], known: FunctionType) -> str:
    """Return the name of a method that may do something else in a subclass, or ''.

    So where it reads ``type(self)`` or ``self.__class__``, or as a class method ``cls``, and does not only
    call it or read what it shares with subclasses. Looked at are methods and properties, also decorated ones
    if the decorator tells what it wraps, of the class and its bases outside of PyTorch. Where the forward
    cannot get to, as by names, class and static methods do not count, nor does ``isinstance(x, type(self))``:
    there it is about the module itself. Methods without source do not count anywhere.

    Args:
        cls: a module's class.
        known: a function that is known to run in any class.
    """
    members = [
        (name, member)
        for c in cls.__mro__
        if not c.__module__.startswith("torch.nn.") and c is not object
        for name, member in vars(c).items()
    ]
    reached = _reached(members)
    for name, member in members:
        if isinstance(member, classmethod | staticmethod) and name not in reached:
            continue
        for function in _functions(member):
            if function is not known and _asks(function, isinstance(member, classmethod), name in reached):
                return name
    return ""


def _reached(members: list[tuple[str, Any]]) -> set[str]:
    """Return the names of all members that the forward may use, by what names it and they read."""
    reached, new = set(), {"forward"}
    while new:
        reached |= new
        functions = [f for name, member in members if name in new for f in _functions(member)]
        new = {name for f in functions for code in _codes(f.__code__) for name in code.co_names} - reached
    return reached


def _functions(member: Any) -> Iterator[FunctionType]:
    """Yield the functions that a member of a class is made of, decorators and what they decorate."""
    if isinstance(member, FunctionType):
        yield member
        yield from _functions(vars(member).get("__wrapped__"))
    elif isinstance(member, _WRAPPERS):
        for name in _WRAPPED:
            yield from _functions(getattr(member, name, None))


def _asks(function: FunctionType, of_class: bool, anywhere: bool) -> bool:
    code = function.__code__
    if not code.co_argcount:
        return False
    if not of_class and not any({"type", "__class__"} & {*c.co_names} for c in _codes(code)):
        return False
    try:
        method = source_of(code)[1]
    except CannotRewrite:
        return False
    asked, harmless = [], []
    for node in ast.walk(method):
        if _is_class_of(node, code.co_varnames[0], of_class):
            asked.append(node)
        elif isinstance(node, ast.Call):
            harmless.append(node.func)
            if not anywhere and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                harmless += node.args[1:]
        elif isinstance(node, ast.Attribute) and _is_shared(node):
            harmless.append(node.value)
    return any(all(node is not other for other in harmless) for node in asked)


def _is_shared(node: ast.Attribute) -> bool:
    """Whether an attribute is read that a class has in common with its fused subclass."""
    return isinstance(node.ctx, ast.Load) and (node.attr in _SAME or not node.attr.startswith("__"))


def _is_class_of(node: ast.AST, name: str, of_class: bool) -> bool:
    """Whether a node is the class of what has this name, or in a class method that itself."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type":
        owner = node.args[0] if len(node.args) == 1 else None
    elif isinstance(node, ast.Attribute) and node.attr == "__class__":
        owner = node.value
    else:
        owner = node if of_class else None
    return isinstance(owner, ast.Name) and owner.id == name


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
