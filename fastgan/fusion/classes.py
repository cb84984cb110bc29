"""Fused classes: a module becomes fused by changing its class, and nothing else about it.

The fused class is a subclass of its own with the same name, in which some methods are others. So parameters,
buffers, children, hooks and attributes are what and where they were, and ``unfuse`` only puts the class back.
"""

from __future__ import annotations

import copyreg
from abc import ABCMeta
from collections.abc import Callable
from functools import cache, update_wrapper
from types import CellType, FunctionType
from typing import Any, Generic

from torch import nn

from fastgan.fusion import sequential
from fastgan.fusion.own_class import asking
from fastgan.fusion.source import CannotRewrite, Site, rewrite

_FORWARD, _ITER = nn.Sequential.forward, nn.Sequential.__iter__
_PLAIN, _SITES, _ALONE = "_fastgan_plain_class", "_fastgan_sites", sequential.ALONE


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module had before it was fused, or would have if it had not been."""
    return _unfused(type(module))


@cache
def _unfused(cls: type) -> type:
    if _PLAIN in vars(cls):
        return vars(cls)[_PLAIN]
    bases = tuple(_unfused(base) for base in cls.__bases__)
    if bases == cls.__bases__:
        return cls
    # A subclass that was made of the fused class, as parametrizations of the module's own parameters do.
    cell = CellType()
    members = {
        name: _with_cell(value, cls, cell)
        for name, value in vars(cls).items()
        if name not in ("__dict__", "__weakref__")
    }
    cell.cell_contents = type(cls)(cls.__name__, bases, members)
    return cell.cell_contents


def _with_cell(member: Any, cls: type, cell: CellType) -> Any:
    """Return a member of a class for another class, which is in a cell: ``super()`` reads such a one."""
    if isinstance(member, property):
        return property(*(_with_cell(f, cls, cell) for f in (member.fget, member.fset, member.fdel)))
    if isinstance(member, classmethod | staticmethod):
        return type(member)(_with_cell(member.__func__, cls, cell))
    if not isinstance(member, FunctionType) or not member.__closure__:
        return member
    closure = []
    for old in member.__closure__:
        try:
            value = old.cell_contents
        except ValueError:  # not assigned yet
            value = None
        new = _with_cell(value, cls, cell)  # decorators keep what they decorate in theirs
        closure.append(cell if value is cls else old if new is value else CellType(new))
    if all(new is old for new, old in zip(closure, member.__closure__, strict=True)):
        return member
    out = FunctionType(
        member.__code__, member.__globals__, member.__name__, member.__defaults__, tuple(closure)
    )
    out.__kwdefaults__ = member.__kwdefaults__
    return update_wrapper(out, member)


def is_sequential(cls: type[nn.Module]) -> bool:
    """Whether a class calls its children in turn, as ``nn.Sequential`` does."""
    in_turn = issubclass(cls, nn.Sequential) and cls.__iter__ is _ITER
    return in_turn and any(cls.forward is forward for forward in (_FORWARD, sequential.forward))


def methods(cls: type[nn.Module]) -> dict[str, FunctionType]:
    """Return the functions that a class, or a base of it that is not PyTorch's, has as methods."""
    found: dict[str, Any] = {}
    for c in cls.__mro__:
        if not c.__module__.startswith("torch.nn."):
            found = vars(c) | found
    return {name: f for name, f in found.items() if isinstance(f, FunctionType)}


def set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Change the class of a module, whatever its ``__setattr__``."""
    object.__setattr__(module, "__class__", cls)


@cache
def fused_class(
    plain: type[nn.Module], sites: tuple[Site, ...] = (), alone: tuple[int, ...] = ()
) -> type[nn.Module]:
    """Return the subclass whose pairs at ``sites`` run as one op; for a Sequential all but ``alone``.

    Sites that are not there, such as those of an older source, are passed over.

    Raises:
        CannotRewrite: a class that would notice, or methods without the source that they were made of.
    """
    if type(plain) not in (type, ABCMeta):
        raise CannotRewrite(f"its class has a metaclass, {type(plain).__name__}")
    if any("__init_subclass__" in vars(c) for c in plain.__mro__ if c not in (object, Generic)):
        raise CannotRewrite("its class is told of subclasses")
    if name := asking(plain, sequential.forward):
        raise CannotRewrite(f"its {name} depends on the class that it has")
    members: dict[str, Any] = {n: getattr(plain, n) for n in ("__module__", "__qualname__", "__doc__")}
    members |= {_PLAIN: plain, "__reduce_ex__": _reduce_ex, _SITES: sites, _ALONE: alone}
    if is_sequential(plain):
        members["forward"] = sequential.forward
    for name in {site.method for site in sites}:
        function = methods(plain).get(name)
        new = function and rewrite(name, function, lambda pair: pair.site in sites)
        if new:
            members[name] = new
    return type(plain)(plain.__name__, (plain,), members)


def _reduce_ex(self: nn.Module, protocol: int) -> str | tuple:
    """Pickle or copy as the plain class does, with the fused class told by what it is made of."""
    fused = next(c for c in type(self).__mro__ if _PLAIN in vars(c))
    reduced = super(fused, self).__reduce_ex__(max(protocol, 2))
    ours = type(self) is fused and not isinstance(reduced, str)
    if not ours or reduced[0] not in (copyreg.__newobj__, copyreg.__newobj_ex__):
        return reduced  # the class has its own way
    create, (_, *arguments), *state = reduced
    made_of = (vars(fused)[name] for name in (_PLAIN, _SITES, _ALONE))
    return (_create, (create, *made_of, *arguments), *state)


def _create(
    create: Callable,
    plain: type[nn.Module],
    sites: tuple[Site, ...],
    alone: tuple[int, ...],
    *arguments: Any,
) -> nn.Module:
    try:
        cls = fused_class(plain, tuple(Site(*site) for site in sites), alone)
    except CannotRewrite:
        cls = plain  # the same numbers, from a file whose source is not where it is loaded
    return create(cls, *arguments)
