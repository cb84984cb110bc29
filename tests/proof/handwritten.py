"""PTX written by hand around a few instructions, for tests of single instructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from helpers.ptx import arithmetic, conversions, traffic, warps  # noqa: F401  (they define instructions)
from helpers.ptx.machine import Machine
from helpers.ptx.memory import GlobalMemory
from helpers.ptx.parse import parse

_FRAME = """
.extern .shared .align 16 .b8 smem[];
.visible .entry test(.param .u64 .ptr .global .align 1 p0, .param .u64 .ptr .global .align 1 p1)
.reqntid {threads}
{{
  .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<40>; .reg .b64 %rd<9>;
  mov.u32 %r0, %tid.x;
  ld.param.b64 %rd0, [p0]; ld.param.b64 %rd1, [p1];
  mul.wide.u32 %rd2, %r0, {stride}; add.s64 %rd0, %rd0, %rd2;
  mul.wide.u32 %rd3, %r0, 8; add.s64 %rd1, %rd1, %rd3;
  {body}
  ret;
}}
"""


def run(body: str, inputs: Sequence | np.ndarray = (), threads: int = 32, shared: int = 1024) -> np.ndarray:
    """Run ``body`` and return what each thread stored at its ``[%rd1]``, uint64 ``[threads]``, else all ones.

    Args:
        body: instructions; ``%r0`` is the thread, ``%rd0`` the address of its inputs, ``%rd1`` of its output.
        inputs: of a thread, 8 bytes each; ``[threads, ...]``, or the same ones for all.
        threads: of the program.
        shared: bytes of shared memory.
    """
    inputs = np.asarray(inputs)
    rows = inputs.view(np.uint64) if inputs.size else np.zeros(1, np.uint64)
    rows = np.array(np.broadcast_to(rows, (threads, rows.shape[-1])))
    out = np.full(threads, -1, np.int64).view(np.uint64)
    memory = GlobalMemory()
    arguments = [memory.add(rows), memory.add(out)]
    memory.load()
    text = _FRAME.format(body=body, threads=threads, stride=8 * rows.shape[1])
    Machine(parse(text), memory, (1,), arguments, shared).run()
    memory.write_back()
    return out


def compute(instruction: str, kind: str, *values) -> np.generic:
    """Run ``instruction`` with its operands in registers and return the result of one thread.

    Args:
        instruction: up to its operands: ``add.s32``.
        kind: NumPy's name for the type of the result.
        values: operands, as NumPy scalars; booleans are predicates.
    """
    numbers = [v for v in values if not isinstance(v, (bool, np.bool_))]
    rows = np.zeros(max(len(numbers), 1), np.uint64)
    lines, operands = [], []
    for i, v in enumerate(numbers):
        rows[i : i + 1].view(v.dtype)[0] = v
        register = f"%{'rd' if v.itemsize == 8 else 'rs' if v.itemsize == 2 else 'r'}{4 + i}"
        lines.append(f"ld.global.b{8 * v.itemsize} {register}, [%rd0+{8 * i}];")
        operands.append(register)
    for v in values:
        if isinstance(v, (bool, np.bool_)):
            lines.append(f"setp.eq.b32 %p2, {int(v)}, 1;")
            operands.append("%p2")
    result = np.dtype(kind)
    size = result.itemsize
    register = "%p1" if result.kind == "b" else f"%{'rd' if size == 8 else 'rs' if size == 2 else 'r'}8"
    lines.append(f"{instruction} {register}, {', '.join(operands)};")
    if result.kind == "b":
        lines.append("selp.b32 %r8, 1, 0, %p1;")
        register, size = "%r8", 4
    lines.append(f"st.global.b{8 * size} [%rd1], {register};")
    out = run("\n".join(lines), rows)
    return out[:1].view(np.uint32 if result.kind == "b" else result)[0]
