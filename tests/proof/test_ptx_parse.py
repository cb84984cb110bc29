"""The parser understands what compilers write, and says so when it does not."""

from __future__ import annotations

import pytest
from helpers.ptx.parse import Address, Immediate, Register, Vector, parse

MODULE = """
.version 8.8
.target sm_80
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(
    .param .u64 .ptr .global .align 1 kernel_param_0,  // a comment, with a ;
    .param .f32 kernel_param_1
)
.reqntid 128
{
    .reg .pred  %p<3>;
    .reg .b32   %r<9>;
    .reg .b64   %rd<2>;
    .loc 1 2 3  // file.py:2:3
$L__BB0_1:
    ld.param.b64 %rd1, [kernel_param_0];
    @!%p1 bra $L__BB0_1;
    // begin inline asm
    { .reg .pred q;
      setp.ne.b32 q, %r1, -7;
      @q ld.global.L1::evict_last.v2.b32 { %r2, _ }, [ %rd1 + 0x10 ];
    }
    // end inline asm
    add.f32 %r3, %r2, 0f3F800000;
    .pragma "nounroll";
    ret;
}
"""


def test_a_kernel():
    kernel = parse(MODULE)
    assert (kernel.name, kernel.threads, kernel.shared) == ("kernel", 128, ["global_smem"])
    assert kernel.parameters == {"kernel_param_0": 8, "kernel_param_1": 4}
    assert kernel.registers == {"%p": "pred", "%r": "b32", "%rd": "b64", "q": "pred"}
    assert kernel.labels == {"$L__BB0_1": 0}
    names = [i.opcode[0] for i in kernel.instructions]
    assert names == ["ld", "bra", "setp", "ld", "add", "ret"]
    assert kernel.instructions[1].predicate == "%p1" and kernel.instructions[1].negated


def test_operands():
    _, _, compare, load, add, _ = parse(MODULE).instructions
    assert compare.operands == [Register("q"), Register("%r1"), Immediate(2**64 - 7)]
    assert load.opcode == ("ld", "global", "L1", "evict_last", "v2", "b32")
    assert load.operands == [Vector((Register("%r2"), Register("_"))), Address(Register("%rd1"), 16)]
    assert add.operands[2] == Immediate(0x3F800000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no .entry"),
        (MODULE.replace(".reqntid 128", ""), "how many threads"),
        (MODULE.replace("add.f32 %r3, %r2,", "add.f32 %r3, %r2 *"), "operand not understood"),
        (MODULE.replace("ret;", ".local .b8 depot[8];"), "statement not understood"),
    ],
)
def test_what_is_not_understood(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
