"""Every place of a model, and whether it can be fused.

A forward is traced as it is and with all candidates in its code rewritten, in training and in evaluation.
Both must give the same graph each time: the proof that rewriting changed nothing. The second trace tells
which Linear each rewritten place calls.
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
from fastgan.fusion.trace import Failed, Trace, plain_copy, trace, variants

_ELSEWHERE = "the code does not call the activation right where it calls the Linear"
_NOTICED = "it, or what is around it, does something else once its class is another"


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
        self.names = {module: name for name, module in modules.items()}
        self.closed: dict[str, str] = {}  # could not be traced in some way to run them, and why
        self.opened: set[str] = set()  # could be in another
        self.unwritten: dict[str, str] = {}
        self.candidates: dict[str, type[nn.Module]] = {}
        self.calls: dict[tuple[str, str, str], _Call] = {}
        self.reached: set[str] = set()
        self.fit: set[_Hit] = set()
        self.unfit: set[_Hit] = set()
        for name, module in modules.items():
            try:
                if cls := _candidate_class(module):
                    self.candidates[name] = cls
            except CannotRewrite as error:
                self.unwritten[name] = str(error)

    def trace(self, root: str) -> None:
        """Trace a module; note what in it cannot be traced, and what notices that it is fused."""
        runs = self._plain_runs(root)
        if not runs:
            return
        names = self._names(root)
        inside = [name for name in names.values() if name in self.candidates]
        fused = self._alike(root, runs, inside)
        if fused is None:
            if self._alike(root, runs, []) is None:
                self.closed[root] = "two traces of it differ"
                return
            fused = self._alike(root, runs, self._unnoticed(root, runs, inside, []))
        for new, run in zip(fused, runs, strict=True):
            self._note(names, new)
            self.opened |= {names[name] for name in new.reached - run.opaque}

    def _plain_runs(self, root: str) -> list[_Run]:
        """Return the ways to run a module that can be traced; a part that cannot is one node there."""
        module, names, runs, failures = self.modules[root], self._names(root), [], []
        scripted = {name for name, m in module.named_modules() if isinstance(m, ScriptModule)}
        for training, arguments in variants(module):
            failed: dict[str, str] = {}
            while "" not in failed:
                opaque = scripted | failed.keys()
                try:
                    plain = trace(self._copy(root, []), training, arguments, opaque)
                except Failed as error:
                    failed["" if error.name in failed else error.name] = str(error)
                else:
                    runs.append(_Run(training, arguments, opaque, plain))
                    self.closed |= {names[name]: reason for name, reason in failed.items()}
                    break
            failures += [failed[""]] if "" in failed else []
        if not runs:
            self.closed[root] = failures[0]
        return runs

    def _copy(self, root: str, fused: Collection[str]) -> nn.Module:
        """Return a plain copy of a module, with the candidates named in their place."""
        copy, names = plain_copy(self.modules[root]), self._names(root)
        inside = dict(copy.named_modules())
        if inside.keys() != names.keys():
            raise Failed("", "a copy of it has other modules")
        for name, module in inside.items():
            if names[name] in fused:
                set_class(module, self.candidates[names[name]])
        return copy

    def _alike(self, root: str, runs: list[_Run], fused: Collection[str]) -> list[Trace] | None:
        """Return the traces with these candidates in place, or None if one is not what it is without."""
        traces = []
        for run in runs:
            try:
                new = trace(self._copy(root, fused), run.training, run.arguments, run.opaque)
            except Failed:
                return None
            if not new.does_as(run.plain):
                return None
            traces.append(new)
        return traces

    def _unnoticed(self, root: str, runs: list[_Run], suspects: list[str], kept: list[str]) -> list[str]:
        """Return what was kept and those suspects that can be fused with it; refuse the others."""
        if self._alike(root, runs, kept + suspects) is not None:
            return kept + suspects
        if len(suspects) == 1:
            del self.candidates[suspects[0]]
            self.unwritten[suspects[0]] = _NOTICED
            return kept
        half = len(suspects) // 2
        return self._unnoticed(
            root, runs, suspects[half:], self._unnoticed(root, runs, suspects[:half], kept)
        )

    def _note(self, names: dict[str, str], new: Trace) -> None:
        """Keep what a trace with the candidates in place has shown."""
        self.reached |= {names[name] for name in new.reached}
        modules = {name: self.modules[whole] for name, whole in names.items()}
        linears = [n for n in new.graph.nodes if isinstance(modules.get(n.target), nn.Linear)]
        for node, caller in zip(linears, new.callers, strict=True):
            fate = fate_of(node, modules)
            hit = new.hits.get(next(iter(node.users), None))
            hit = hit and _Hit(names[hit[0]], hit[1])
            key = (names[node.target], names[caller], fate.what)
            if key not in self.calls or self.calls[key].fate.reason or not self.calls[key].hit:
                self.calls[key] = _Call(fate, hit)
            if hit and not fate.reason:
                self.fit.add(hit)
            if hit and fate.kept:
                self.unfit.add(hit)

    def _names(self, root: str) -> dict[str, str]:
        """Return for every module in one its name in the whole model, where a shared one has one name."""
        return {name: self.names[module] for name, module in self.modules[root].named_modules()}

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
        fused = {hit.module for hit in self.fit - self.unfit if hit.module in self.candidates}
        return Analysis(places, {name: self._fused(name) for name in fused})

    @property
    def failed(self) -> dict[str, str]:
        """What cannot be traced in any way, and why."""
        return {name: reason for name, reason in self.closed.items() if name not in self.opened}

    def _fused(self, name: str) -> Fused:
        if _is_sequential(self.modules[name]):
            return Fused(alone=tuple(sorted(hit.site for hit in self.unfit if hit.module == name)))
        sites = (Site(*hit.site) for hit in self.fit - self.unfit if hit.module == name)
        return Fused(sites=tuple(sorted(sites)))

    def _reason(self, caller: str, call: _Call) -> str:
        if call.fate.reason:
            return call.fate.reason
        if call.hit is None or caller in self.unwritten:
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


class _Run(NamedTuple):
    """A way to run a module, and what it then does."""

    training: bool
    arguments: dict[str, Any]
    opaque: set[str]
    plain: Trace


class _Hit(NamedTuple):
    module: str
    site: Any


class _Call(NamedTuple):
    fate: Fate
    hit: _Hit | None


def _candidate_class(module: nn.Module) -> type[nn.Module] | None:
    plain = plain_class(module)
    if is_sequential(plain):
        return fused_class(plain)
    if issubclass(plain, nn.Sequential) and plain.__iter__ is not nn.Sequential.__iter__:
        raise CannotRewrite(f"{plain.__name__} has an __iter__ of its own")
    sites = candidates(module)
    return fused_class(plain, sites) if sites else None


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
