"""Hand-written methods, rewritten from their source: ``F.relu(self.fc(x))`` becomes one call.

Only single expressions are rewritten: what surrounds them (``no_grad``, ``if self.training``, loops, what is
kept in ``self``) stays the author's. These forms are known; ``act`` stands for a module or a function::

    act(fc(x), ...)        y = fc(x)               y = fc(x)
    fc(x).relu()           z = act(y, ...)         return act(y, ...)

A method is rewritten only where its source compiles to the very bytecode that it has.
"""

from __future__ import annotations
import __future__

import ast
import functools
import linecache
from collections import Counter
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import NamedTuple

from fastgan.fusion.call import RELU_METHODS, call

_HELPER = "_fastgan_call"
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class Site(NamedTuple):
    """Where a class calls an activation: method, line counted from the method's first one, and column."""

    method: str
    line: int
    column: int


class Pair(NamedTuple):
    """An activation's call: its site, the activation (or a method's name), and what it is applied to."""

    site: Site
    activation: ast.expr | str
    inner: ast.expr


# Whether to rewrite a pair whose inner expression is a call.
Accept = Callable[[Pair], bool]


class CannotRewrite(Exception):
    """Why a method is left as it is."""


def rewrite(name: str, function: FunctionType, accept: Accept) -> FunctionType | None:
    """Return a method that calls :func:`fastgan.fusion.call.call` for accepted pairs.

    Args:
        name: what its class calls the method.
        function: the method.
        accept: told of every pair, says which to rewrite.

    Returns:
        The function, or None where nothing was accepted.

    Raises:
        CannotRewrite: without source, or where the source is not that of the running code.
    """
    code = function.__code__
    tree, node = source_of(code)
    node.body = _Joiner(name, code, accept, node).block(node.body)
    editor = _Editor(name, code, accept)
    node.body = [editor.visit(statement) for statement in node.body]
    if not editor.edits:
        return None
    new = _find(_compiled(ast.fix_missing_locations(_Wrapper(node).visit(tree)), code), code)
    if new is None or {*new.co_freevars} != {*code.co_freevars, _HELPER}:
        raise CannotRewrite("its source compiles to something else")
    if hasattr(code, "co_qualname"):  # from Python 3.11 on
        new = new.replace(co_qualname=code.co_qualname)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True)) | {_HELPER: CellType(call)}
    closure = tuple(cells[name] for name in new.co_freevars)
    out = FunctionType(new, function.__globals__, function.__name__, function.__defaults__, closure)
    out.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(out, function)


def source_of(code: CodeType) -> tuple[ast.Module, ast.FunctionDef]:
    """Return the module and the function in it that has a code.

    Raises:
        CannotRewrite: no source, or another one.
    """
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError as error:
        raise CannotRewrite("its source does not parse") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (node.name, _first_line(node)) == _key(code):
            # The whole module, since what it imports tells the compiler how to call ``F.relu``.
            if _find(_compiled(tree, code), code) != code:
                raise CannotRewrite("its source is not what runs")
            return tree, node
    raise CannotRewrite("its source is not at hand")


def _first_line(node: ast.FunctionDef) -> int:
    return min(n.lineno for n in (node, *node.decorator_list))


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _compiled(tree: ast.Module, code: CodeType) -> CodeType:
    # In a notebook, the import that sets this flag may be in another cell.
    flags = code.co_flags & __future__.annotations.compiler_flag
    return compile(tree, code.co_filename, "exec", flags, dont_inherit=True)


def _find(code: CodeType, wanted: CodeType) -> CodeType | None:
    if _key(code) == _key(wanted) and code.co_name != "<module>":
        return code
    found = (_find(c, wanted) for c in code.co_consts if isinstance(c, CodeType))
    return next((c for c in found if c is not None), None)


class _Wrapper(ast.NodeTransformer):
    """Moves a method into a function of one argument, the helper, which so becomes a free variable of it."""

    def __init__(self, method: ast.FunctionDef) -> None:
        self.method = method

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node is not self.method:
            return self.generic_visit(node)
        wrapper = ast.parse(f"def {_HELPER}({_HELPER}): pass").body[0]
        wrapper.body = [node]
        return ast.copy_location(wrapper, node)


class _InMethod(ast.NodeTransformer):
    """Goes through a method's own code, but not into functions and classes in it."""

    def __init__(self, name: str, code: CodeType, accept: Accept) -> None:
        self.name, self.code, self.accept = name, code, accept

    def visit(self, node: ast.AST) -> ast.AST:
        return node if isinstance(node, _SCOPES) else super().visit(node)

    def pair(self, node: ast.AST) -> Pair | None:
        """Return the pair of which a node is the activation's call, as far as its form tells."""
        if not isinstance(node, ast.Call):
            return None
        site = Site(self.name, node.lineno - self.code.co_firstlineno, node.col_offset)
        if isinstance(node.func, ast.Attribute) and node.func.attr in RELU_METHODS and not node.args:
            return None if node.keywords else Pair(site, node.func.attr, node.func.value)
        others = [*node.args[1:], *(k.value for k in node.keywords)]
        named = {k.arg for k in node.keywords} <= {"negative_slope", "inplace"}
        if node.args and named and _is_path(node.func) and all(map(_is_plain, others)):
            return Pair(site, node.func, node.args[0])
        return None


class _Joiner(_InMethod):
    """Makes ``y = act(fc(x))`` of ``h = fc(x)`` and ``y = act(h)`` where ``h`` is of no other use."""

    def __init__(self, name: str, code: CodeType, accept: Accept, method: ast.FunctionDef) -> None:
        super().__init__(name, code, accept)
        names = [n for n in ast.walk(method) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)]
        self.reads = Counter(n.id for n in names)
        self.local = {*code.co_varnames} - {*code.co_cellvars}

    def visit_Try(self, node: ast.AST) -> ast.AST:
        return node  # where a handler might see the name

    visit_TryStar = visit_Try

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, name, self.block(value))
        return node

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in statements:
            statement = self.visit(statement)
            if out and self._join(out[-1], statement):
                out.pop()
            out.append(statement)
        return out

    def _join(self, first: ast.stmt, second: ast.stmt) -> bool:
        if not isinstance(first, ast.Assign) or not isinstance(second, ast.Assign | ast.Return):
            return False
        if (
            len(first.targets) != 1
            or not isinstance(first.targets[0], ast.Name)
            or _linear(first.value) is None
        ):
            return False
        name = first.targets[0].id
        here = sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(second.value or ast.Pass()))
        ends = isinstance(second, ast.Return) or (
            len(second.targets) == 1
            and isinstance(second.targets[0], ast.Name)
            and second.targets[0].id == name
        )
        if name not in self.local or here != 1 or not (ends or self.reads[name] == 1):
            return False
        # What is evaluated before the activation may be paths only.
        node = second.value
        while isinstance(node, ast.Call):
            pair = self.pair(node)
            if pair is not None and isinstance(pair.inner, ast.Name) and pair.inner.id == name:
                if not self.accept(pair._replace(inner=first.value)):
                    return False
                if isinstance(pair.activation, str):
                    node.func.value = first.value
                else:
                    node.args[0] = first.value
                return True
            if _is_path(node.func):
                node = node.args[0] if node.args else None
            else:
                node = node.func.value if isinstance(node.func, ast.Attribute) else None
        return False


class _Editor(_InMethod):
    """Rewrites the accepted pairs."""

    edits = 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        pair = self.pair(node)
        if pair is None or _linear(pair.inner) is None or not self.accept(pair):
            return node
        self.edits += 1
        method = isinstance(pair.activation, str)
        activation = ast.Constant(pair.activation) if method else pair.activation
        arguments = [ast.Constant(tuple(pair.site)), activation, pair.inner.func, *pair.inner.args]
        arguments += [] if method else node.args[1:]
        new = ast.Call(ast.Name(_HELPER, ast.Load()), arguments, node.keywords)
        return ast.copy_location(new, node)


def _linear(node: ast.expr) -> ast.expr | None:
    """Return ``fc`` for ``fc(x)``, and None for any other form."""
    if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords or not _is_path(node.func):
        return None
    return None if isinstance(node.args[0], ast.Starred) else node.func


def _is_path(node: ast.expr) -> bool:
    """Whether an expression is like ``self.layers[0]``, which may be read earlier or later."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript):
            index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
            if not isinstance(index, ast.Constant | ast.Name):
                return False
        node = node.value
    return isinstance(node, ast.Name)


def _is_plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or _is_path(node)
