"""Every place of a model, and whether it can be fused.

A forward is traced as it is and with all candidates in its code rewritten. Both must give the same graph: the
proof that rewriting changed nothing. The second trace tells which Linear each rewritten place calls.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn
from torch.jit import ScriptModule

from fastgan.fusion.candidates import candidates
from fastgan.fusion.classes import fused_class, is_sequential, plain_class, set_class
from fastgan.fusion.dataflow import Fate, fate_of
from fastgan.fusion.source import CannotRewrite, Site
from fastgan.fusion.trace import Failed, plain_copy, trace, variants

_ELSEWHERE = "the code does not call the activation right where it calls the Linear"


@dataclass(frozen=True)
class Place:
    """A call of a Linear, or a module that torch.fx cannot trace or does not see, and what becomes of it.

    Attributes:
        name: the module's, as ``named_modules`` has it.
        what: its class, and for a Linear what follows it.
        reason: why it is left alone; empty where it is fused.
    """

    name: str
    what: str
    reason: str = ""


@dataclass
class Analysis:
    """All places of a model, and by module how it is to be fused: the arguments of ``fused_class``."""

    places: list[Place] = field(default_factory=list)
    fused: dict[str, Fused] = field(default_factory=dict)


class Fused(NamedTuple):
    """The sites at which a hand-written module is fused; where in a Sequential a Linear is left alone."""

    sites: tuple[Site, ...] = ()
    alone: tuple[int, ...] = ()


def analyse(model: nn.Module) -> Analysis:
    """Return all places of a model. The model itself is not run, and stays as it is."""
    study = _Study(dict(model.named_modules()))
    for name, module in study.modules.items():
        # What the forward does not reach is traced by itself: a GAN in one module, or what cannot be traced.
        if name not in study.reached and not _is_whole(module) and _has_forward(module):
            study.trace(name)
    return study.analysis()


class _Study:
    """What traces of a model's modules have shown so far; all names are those of the whole model."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.failed: dict[str, str] = {}
        self.unwritten: dict[str, str] = {}
        self.candidates: dict[str, type[nn.Module]] = {}
        self.calls: dict[tuple[str, str, str], _Call] = {}
        self.reached: set[str] = set()
        self.fit: set[_Hit] = set()
        self.unfit: set[_Hit] = set()
        for name, module in modules.items():
            try:
                self.candidates[name] = _candidate_class(module)
            except CannotRewrite as error:
                self.unwritten[name] = str(error)

    def trace(self, root: str) -> None:
        """Trace a module, and note which ones in it cannot be traced."""
        failed: dict[str, str] = {}
        while root not in failed:
            try:
                self._trace(root, failed.keys())
                break
            except Failed as error:
                name = _join(root, error.name)
                failed[root if name in failed else name] = str(error)
        self.failed |= failed

    def _trace(self, root: str, opaque: Collection[str]) -> None:
        errors, done = [], False
        inside = {name[len(root) + 1 if root else 0 :] for name in opaque}
        inside |= {n for n, m in self.modules[root].named_modules() if isinstance(m, ScriptModule)}
        for variant in variants(self.modules[root]):
            try:
                self._trace_variant(root, *variant, inside)
                done = True
            except Failed as error:
                errors.append(error)
        if not done:
            raise errors[0]

    def _trace_variant(self, root: str, training: bool, arguments: dict, opaque: set[str]) -> None:
        plain = trace(plain_copy(self.modules[root]), training, arguments, opaque)
        copy = plain_copy(self.modules[root])
        for name, module in copy.named_modules():
            set_class(module, self.candidates.get(_join(root, name), type(module)))
        new = trace(copy, training, arguments, opaque)
        if str(plain.graph) != str(new.graph):
            raise Failed("", "two traces of it differ")
        self.reached |= {_join(root, name) for name in new.reached}
        modules = {name: self.modules[_join(root, name)] for name, _ in copy.named_modules()}
        linears = [n for n in new.graph.nodes if isinstance(modules.get(n.target), nn.Linear)]
        for node, caller in zip(linears, new.callers, strict=True):
            fate = fate_of(node, modules)
            hit = new.hits.get(next(iter(node.users), None))
            hit = hit and _Hit(_join(root, hit[0]), hit[1])
            key = (_join(root, node.target), _join(root, caller), fate.what)
            if key not in self.calls or self.calls[key].fate.reason or not self.calls[key].hit:
                self.calls[key] = _Call(fate, hit)
            if hit and not fate.reason:
                self.fit.add(hit)
            if hit and fate.kept:
                self.unfit.add(hit)

    def analysis(self) -> Analysis:
        """Return what has been found."""
        places = []
        for name, module in self.modules.items():
            if name in self.failed and any(isinstance(m, nn.Linear) for m in module.modules()):
                places.append(
                    Place(name, type(module).__name__, f"torch.fx cannot trace it: {self.failed[name]}")
                )
            parent = self.modules[name.rpartition(".")[0]] if name else None
            if isinstance(module, ScriptModule) and not isinstance(parent, ScriptModule):
                places.append(Place(name, module.original_name, "it is TorchScript, not Python"))
            if not isinstance(module, nn.Linear):
                continue
            kind = type(module).__name__
            calls = [(caller, call) for (linear, caller, _), call in self.calls.items() if linear == name]
            for caller, call in calls:
                places.append(Place(name, f"{kind}, {call.fate.what}", self._reason(caller, call)))
            if not calls:
                places.append(Place(name, kind, self._unseen(name)))
        return Analysis(places, {hit.module: self._fused(hit.module) for hit in self.fit - self.unfit})

    def _fused(self, name: str) -> Fused:
        if _is_sequential(self.modules[name]):
            return Fused(alone=tuple(sorted(hit.site for hit in self.unfit if hit.module == name)))
        sites = (Site(*hit.site) for hit in self.fit - self.unfit if hit.module == name)
        return Fused(sites=tuple(sorted(sites)))

    def _reason(self, caller: str, call: _Call) -> str:
        if call.fate.reason:
            return call.fate.reason
        if call.hit is None:
            return self.unwritten.get(caller, _ELSEWHERE)
        spoilt = "the same code has a result that is changed in place"
        return spoilt if call.hit in self.unfit else ""

    def _unseen(self, name: str) -> str:
        if not name:
            return "it is the whole model"
        for parent in _parents(name):
            if parent in self.failed:
                return f"torch.fx cannot trace {parent or 'the model'}"
            if _is_whole(self.modules[parent]):
                return f"it is part of {type(self.modules[parent]).__name__}"
        return "the forward does not call it"


class _Hit(NamedTuple):
    module: str
    site: Any


class _Call(NamedTuple):
    fate: Fate
    hit: _Hit | None


def _candidate_class(module: nn.Module) -> type[nn.Module]:
    if _is_sequential(module):
        return fused_class(plain_class(module))
    sites = candidates(module)
    return fused_class(plain_class(module), sites) if sites else plain_class(module)


def _is_sequential(module: nn.Module) -> bool:
    return is_sequential(plain_class(module))


def _is_whole(module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's, with code of its own, or TorchScript."""
    if isinstance(module, ScriptModule):
        return True
    ours = type(module).__module__.startswith("torch.nn.")
    return ours and not isinstance(module, nn.Sequential) and _has_forward(module)


def _has_forward(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _parents(name: str) -> list[str]:
    """Return the names of the modules around one, innermost first."""
    return [name[:i] for i in reversed(range(len(name))) if i == 0 or name[i] == "."]


def _join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent and child else parent or child
