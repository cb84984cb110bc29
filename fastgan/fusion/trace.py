"""Runs a module's forward with symbols in place of tensors, on a copy, and leaves nothing behind."""

from __future__ import annotations

import copy
import inspect
import io
import operator
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from fastgan.fusion import call
from fastgan.fusion.classes import plain_class, set_class
from fastgan.fusion.dataflow import IN_PLACE


class Failed(Exception):
    """A forward cannot be traced.

    Attributes:
        name: of the module whose forward could not go on, below the one that was to be traced.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class Trace(NamedTuple):
    """What a forward does.

    Attributes:
        graph: of torch.fx, each Linear one node.
        callers: for every call of a Linear, in order, the name of the module whose code calls it.
        reached: names of all modules that were called.
        hits: for every activation that a rewritten place called: the module whose code it is, and the site.
        constants: the tensors that the graph reads, by name.
    """

    graph: fx.Graph
    callers: list[str]
    reached: set[str]
    hits: dict[fx.Node, tuple[str, Any]]
    constants: dict[str, Any]

    def does_as(self, other: Trace) -> bool:
        """Return whether another forward does the same: the same graph, of the same tensors."""
        if str(self.graph) != str(other.graph):
            return False
        return all(_is_same(value, other.constants[name]) for name, value in self.constants.items())


def _is_same(one: Any, other: Any) -> bool:
    """Whether two tensors have the same values; taken for granted where these cannot be read."""
    if any(type(t) not in (torch.Tensor, nn.Parameter) or t.layout != torch.strided for t in (one, other)):
        return type(one) is type(other)
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    if one.is_meta or one.is_quantized:
        return True
    return bool(((one == other) | ((one != one) & (other != other))).all())


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy that is not fused and has no hooks.

    Raises:
        Failed: a module that cannot be copied.
    """
    # Norms of the older kind leave tensors in modules that PyTorch does not copy.
    held = [t for m in module.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]
    memo = {id(t): t.detach() for t in held if not t.is_leaf}
    try:
        module = copy.deepcopy(module, memo)
    except Exception as error:
        raise Failed("", f"it cannot be copied: {_first_sentence(error)}") from error
    for m in module.modules():
        set_class(m, plain_class(m))
        for hooks in (m._forward_hooks, m._forward_pre_hooks):
            hooks.clear()
    return module


def variants(module: nn.Module) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Yield the ways to trace a forward: in training or not, optional arguments given or not."""
    parameters = inspect.signature(module.forward).parameters.values()
    optional = {p.name: p.default for p in parameters if p.default is None}
    for training in (module.training, not module.training):
        for arguments in [{}, optional] if optional else [{}]:
            yield training, arguments


def trace(module: nn.Module, training: bool, arguments: dict[str, Any], opaque: set[str]) -> Trace:
    """Trace a module, which may change by it.

    Args:
        module: what :func:`plain_copy` returned, possibly fused since.
        training: the mode.
        arguments: of the forward, those that are not symbols.
        opaque: names of modules that are kept as one node.

    Raises:
        Failed: a forward that does not go through.
    """
    tracer = _Tracer(opaque)
    with _undisturbed(), _heard_by(tracer.hear):
        try:
            graph = tracer.trace(module.train(training), arguments or None)
        except Exception as error:
            raise Failed(tracer.failed, _first_sentence(error)) from error
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    constants = {name: operator.attrgetter(name)(tracer.root) for name in read}
    return Trace(graph, tracer.callers, tracer.reached, tracer.hits, constants)


class _Proxy(fx.Proxy):
    """A symbol that knows changes in place: fx takes ``x += y`` for ``x + y``, and has no ``x[i] = y``."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


def _change(function: Callable) -> Callable:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", _change(_function))


class _Tracer(fx.Tracer):
    def __init__(self, opaque: set[str]) -> None:
        super().__init__()
        self.opaque, self.failed = opaque, ""
        self.callers: list[str] = []
        self.reached: set[str] = set()
        self.hits: dict[fx.Node, tuple[str, Any]] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = module_qualified_name in self.opaque or isinstance(m, (nn.Linear, *call.ACTIVATIONS))
        return leaf or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        name = self.path_of_module(m)
        self.reached.add(name)
        if isinstance(m, nn.Linear):
            self.callers.append(self.scope.module_path)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or name
            raise

    def hear(self, site: Any, out: Any) -> None:
        if isinstance(out, fx.Proxy):
            self.hits[out.node] = (self.scope.module_path, site)


@contextmanager
def _heard_by(listener: Callable) -> Iterator[None]:
    call.listener = listener
    try:
        yield
    finally:
        call.listener = None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep what a forward draws, prints and warns of to itself."""
    numpy = sys.modules.get("numpy")
    state, numpy_state = random.getstate(), numpy and numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)


def _first_sentence(error: Exception) -> str:
    sentence = re.split(r"[.] |\n", str(error))[0]
    return f"{type(error).__name__}: {sentence}"
