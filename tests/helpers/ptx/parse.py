"""PTX text to a list of instructions: the statements of a kernel's body, as in NVIDIA's "PTX ISA".

Only what compilers write for one kernel is understood: register declarations, labels, scopes in braces,
predicates, and instructions with operands. Anything else is an error, never skipped silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Register:
    """``%r12``, a special one such as ``%tid.x``, or another name: a parameter, a label, a variable."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A constant, as the bits that it has in 64-bit two's complement, or of the float that it is."""

    bits: int


@dataclass(frozen=True)
class Address:
    """``[%rd1 + 16]`` or ``[kernel_param_0]``."""

    base: Register | None
    offset: int


@dataclass(frozen=True)
class Vector:
    """``{%r1, %r2}``; ``_`` is an element that is thrown away."""

    elements: tuple[Register | Immediate, ...]


Operand = Register | Immediate | Address | Vector


@dataclass
class Instruction:
    """One statement.

    Attributes:
        opcode: ``mma.sync.aligned...`` split at the dots.
        operands: destination first.
        predicate: register that decides thread by thread whether it runs, or None.
        negated: whether the predicate is ``@!``.
        text: as written, for messages.
    """

    opcode: tuple[str, ...]
    operands: list[Operand]
    predicate: str | None
    negated: bool
    text: str


@dataclass
class Kernel:
    """An entry function.

    Attributes:
        name: its name.
        parameters: names, in order, with the bytes of each.
        threads: per program (``.reqntid``).
        registers: declared prefix (``%rd``) or name to its type (``b64``).
        shared: variables in shared memory.
        instructions: the body.
        labels: name to the index of the instruction that follows.
    """

    name: str
    parameters: dict[str, int]
    threads: int
    registers: dict[str, str]
    shared: list[str]
    instructions: list[Instruction]
    labels: dict[str, int]


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEBUG = re.compile(r"^\s*\.(?:loc|file)\b[^\n]*$", re.MULTILINE)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{;]*)\{", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+\.([a-z]+)(\d+)\b.*?([\w$]+)\s*$")
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_STATEMENT = re.compile(
    r"(?:@(!?)(%?[\w$]+)\s+)?"  # a predicate
    r"([a-z][\w.:]*)\s*(.*)",  # the opcode and its operands
    re.DOTALL,
)


def parse(ptx: str) -> Kernel:
    """Return the first kernel of a PTX module.

    Raises:
        ValueError: there is none, or something in it that is not understood.
    """
    text = _DEBUG.sub("", _COMMENT.sub("", ptx))
    entry = _ENTRY.search(text)
    if entry is None:
        raise ValueError("no .entry in this PTX")
    name, parameters, directives = entry.groups()
    sizes = {}
    for declaration in parameters.split(","):
        found = _PARAMETER.search(declaration.strip())
        if found is None:
            raise ValueError(f"parameter not understood: {declaration!r}")
        sizes[found[3]] = int(found[2]) // 8
    threads = re.search(r"\.(?:req|max)ntid\s+(\d+)", directives)
    if threads is None:
        raise ValueError(f"{name} does not say how many threads it has")
    kernel = Kernel(name, sizes, int(threads[1]), {}, [], [], {})
    kernel.shared.extend(re.findall(r"\.shared\b[^;{]*?([\w$]+)\s*\[[^]]*\]\s*;", text))
    _parse_body(text, entry.end(), kernel)
    return kernel


def _parse_body(text: str, at: int, kernel: Kernel) -> None:
    depth = 1
    while depth:
        while text[at].isspace():
            at += 1
        if text[at] in "{}":  # a scope; registers of inline assembly have names of their own
            depth += 1 if text[at] == "{" else -1
            at += 1
        elif label := _LABEL.match(text, at):
            kernel.labels[label[1]] = len(kernel.instructions)
            at = label.end()
        else:
            end = text.index(";", at)
            statement = text[at:end].strip()
            at = end + 1
            if statement.startswith(".reg"):
                _declare(statement, kernel.registers)
            elif statement.startswith(".pragma"):
                pass  # a hint for ptxas
            elif statement:
                kernel.instructions.append(_instruction(statement))


def _declare(statement: str, registers: dict[str, str]) -> None:
    """Note ``.reg .b32 %r<555>`` as the prefix ``%r``, and ``.reg .pred p, q`` as two names."""
    _, kind, names = statement.split(None, 2)
    for name in names.split(","):
        registers[re.sub(r"<\d+>", "", name.strip())] = kind.removeprefix(".")


def _instruction(statement: str) -> Instruction:
    found = _STATEMENT.fullmatch(statement)
    if found is None:
        raise ValueError(f"statement not understood: {statement!r}")
    negated, predicate, opcode, operands = found.groups()
    return Instruction(
        tuple(opcode.replace("::", ".").split(".")),
        [_operand(o) for o in _split(operands)],
        predicate,
        bool(negated),
        " ".join(statement.split()),
    )


def _split(operands: str) -> list[str]:
    """Split at the commas outside of braces and brackets."""
    parts = re.findall(r"\{[^}]*\}|\[[^]]*\]|[^,\s][^,]*", operands)
    return [p.strip() for p in parts]


def _operand(text: str) -> Operand:
    if text[0] == "{":
        return Vector(tuple(_scalar(e.strip()) for e in text[1:-1].split(",")))
    if text[0] == "[":
        base, _, offset = text[1:-1].replace(" ", "").partition("+")
        if re.fullmatch(r"-?(0x)?[0-9a-fA-F]+", base):
            return Address(None, int(base, 0))
        return Address(Register(base), int(offset or "0", 0))
    return _scalar(text)


def _scalar(text: str) -> Register | Immediate:
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}", text):
        return Immediate(int(text[2:], 16))
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0) & (2**64 - 1))
    if re.fullmatch(r"[%$\w][\w.$|]*", text):
        return Register(text)
    raise ValueError(f"operand not understood: {text!r}")
