"""Single instructions of the simulator against what NVIDIA's "PTX ISA" says of them, corner cases first."""

from __future__ import annotations

import numpy as np
import pytest
from handwritten import compute, run
from helpers.ptx.memory import SimulationError

s32, u32, s64, u64, f32, u16 = np.int32, np.uint32, np.int64, np.uint64, np.float32, np.uint16
NAN, TINY = f32(np.nan), f32(1e-40)

CASES = [
    ("add.s32", "i4", (s32(2**31 - 1), s32(1)), -(2**31)),
    ("sub.s32", "i4", (s32(-(2**31)), s32(1)), 2**31 - 1),
    ("mul.lo.s32", "i4", (s32(-3), s32(2**30)), 2**30),
    ("mul.hi.u32", "u4", (u32(2**32 - 1), u32(2**32 - 1)), 2**32 - 2),
    ("mul.hi.s32", "i4", (s32(-1), s32(1)), -1),
    ("mul.wide.s32", "i8", (s32(-(2**31)), s32(-(2**31))), 2**62),
    ("mul.wide.u32", "u8", (u32(2**32 - 1), u32(2)), 2**33 - 2),
    ("mul.hi.u64", "u8", (u64(2**64 - 1), u64(2**64 - 1)), 2**64 - 2),
    ("mul.hi.s64", "i8", (s64(-(2**63)), s64(2)), -1),
    ("mad.lo.s32", "i4", (s32(5), s32(-7), s32(1)), -34),
    ("mad.wide.u32", "u8", (u32(2**32 - 1), u32(2**32 - 1), u64(1)), (2**32 - 1) ** 2 + 1),
    ("div.s32", "i4", (s32(-7), s32(2)), -3),
    ("rem.s32", "i4", (s32(-7), s32(2)), -1),
    ("div.u64", "u8", (u64(2**64 - 1), u64(10)), (2**64 - 1) // 10),
    ("min.s32", "i4", (s32(-1), s32(1)), -1),
    ("min.u32", "u4", (u32(2**32 - 1), u32(1)), 1),
    ("shl.b32", "u4", (u32(1), u32(32)), 0),
    ("shr.u32", "u4", (u32(2**31), u32(40)), 0),
    ("shr.s32", "i4", (s32(-8), u32(40)), -1),
    ("shf.l.wrap.b32", "u4", (u32(0x80000000), u32(1), u32(33)), 3),
    ("shf.r.wrap.b32", "u4", (u32(2), u32(1), u32(1)), 0x80000001),
    ("bfe.u32", "u4", (u32(0xABCD1234), u32(8), u32(8)), 0x12),
    ("bfe.s32", "i4", (s32(0xF0), u32(4), u32(4)), -1),
    ("bfe.u32", "u4", (u32(0xFF), u32(4), u32(0)), 0),
    ("prmt.b32", "u4", (u32(0x33221100), u32(0x77665544), u32(0x7610)), 0x77661100),
    ("prmt.b32", "u4", (u32(0x00008000), u32(0), u32(0x0009)), 0x000000FF),
    ("xor.b64", "u8", (u64(6), u64(3)), 5),
    ("not.b16", "u2", (u16(1),), 0xFFFE),
    ("abs.f32", "f4", (f32(-0.0),), 0.0),
    ("neg.f32", "f4", (f32(2),), -2.0),
    ("fma.rn.f32", "f4", (f32(1 + 2**-12), f32(1 - 2**-12), f32(-1)), -(2.0**-24)),
    ("min.f32", "f4", (NAN, f32(1)), 1.0),
    ("max.f32", "f4", (f32(1), NAN), 1.0),
    ("add.ftz.f32", "f4", (TINY, f32(0)), 0.0),
    ("mul.ftz.f32", "f4", (f32(1e-30), f32(1e-10)), 0.0),
    ("ex2.approx.ftz.f32", "f4", (f32(-3),), 0.125),
    ("lg2.approx.f32", "f4", (f32(0.25),), -2.0),
    ("rcp.approx.ftz.f32", "f4", (f32(4),), 0.25),
    ("sqrt.rn.f32", "f4", (f32(2),), np.sqrt(f32(2))),
    ("rsqrt.approx.f32", "f4", (f32(16),), 0.25),
    ("div.full.f32", "f4", (f32(1), f32(3)), f32(1) / f32(3)),
    ("setp.lt.f32", "?", (NAN, f32(1)), False),
    ("setp.ltu.f32", "?", (NAN, f32(1)), True),
    ("setp.ne.f32", "?", (NAN, f32(1)), False),
    ("setp.neu.f32", "?", (NAN, NAN), True),
    ("setp.num.f32", "?", (f32(1), f32(2)), True),
    ("setp.nan.f32", "?", (f32(1), NAN), True),
    ("setp.lt.u32", "?", (u32(2**31), u32(1)), False),
    ("setp.lt.s32", "?", (s32(-(2**31)), s32(1)), True),
    ("setp.eq.and.s32", "?", (s32(1), s32(1), False), False),
    ("selp.b32", "u4", (u32(3), u32(4), True), 3),
    ("cvt.rn.f32.s32", "f4", (s32(2**24 + 1),), 2.0**24),
    ("cvt.rzi.s32.f32", "i4", (f32(-2.7),), -2),
    ("cvt.rni.s32.f32", "i4", (f32(2.5),), 2),
    ("cvt.rzi.s32.f32", "i4", (f32(1e20),), 2**31 - 1),
    ("cvt.rzi.s32.f32", "i4", (NAN,), 0),
    ("cvt.rmi.ftz.f32.f32", "f4", (f32(-2.5),), -3.0),
    ("cvt.rni.f32.f32", "f4", (f32(2.5),), 2.0),
    ("cvt.s64.s32", "i8", (s32(-1),), -1),
    ("cvt.u64.u32", "u8", (u32(2**32 - 1),), 2**32 - 1),
    ("cvt.u32.u64", "u4", (u64(2**32 + 5),), 5),
    ("cvt.rna.tf32.f32", "f4", (f32(1 + 2**-11),), 1 + 2.0**-10),
    ("cvt.rna.tf32.f32", "f4", (f32(1 + 2**-11 - 2**-23),), 1.0),
    ("cvt.rn.bf16.f32", "u2", (f32(1 + 2**-8),), 0x3F80),
    ("cvt.rn.bf16.f32", "u2", (f32(1 + 3 * 2**-8),), 0x3F82),
    ("cvt.rn.bf16x2.f32", "u4", (f32(1), f32(2)), 0x3F804000),
    ("cvt.f32.bf16", "f4", (u16(0x3F80),), 1.0),
]


@pytest.mark.parametrize(("instruction", "kind", "values", "wanted"), CASES)
def test_instruction(instruction, kind, values, wanted):
    got = compute(instruction, kind, *values)
    assert got == wanted, f"{instruction} {values}: {got}, wanted {wanted}"


def test_moves_take_registers_apart_and_together():
    out = run(
        "ld.global.b64 %rd4, [%rd0]; mov.b64 {%r1, %r2}, %rd4; mov.b32 {_, %rs1}, %r1;"
        "cvt.u32.u16 %r3, %rs1; mov.b64 %rd5, {%r3, %r2}; st.global.b64 [%rd1], %rd5;",
        np.array([0x1111222233334444], np.uint64),
    )
    assert out[0] == 0x1111222200003333


def test_threads_that_loop_unequally_meet_again():
    """Thread i adds 1 + 2 + ... + i, then all of a warp exchange."""
    out = run("""
        mov.u32 %r1, 0; mov.u32 %r2, 0;
    $loop:
        add.s32 %r2, %r2, %r1; add.s32 %r1, %r1, 1;
        setp.le.s32 %p1, %r1, %r0; @%p1 bra $loop;
        shfl.sync.idx.b32 %r3, %r2, 31, 0x1f, -1;
        mad.lo.s32 %r4, %r3, 1000, %r2; cvt.u64.u32 %rd4, %r4; st.global.b64 [%rd1], %rd4;
    """)
    i = np.arange(32)
    assert (out == 496 * 1000 + i * (i + 1) // 2).all()


def test_threads_that_leave_do_not_hold_up_a_barrier():
    out = run("""
        setp.lt.u32 %p1, %r0, 32; @%p1 bra $end;
        bar.sync 0; mov.b64 %rd4, 7; st.global.b64 [%rd1], %rd4;
    $end:
    """, threads=64)  # fmt: skip
    assert (out[32:] == 7).all() and (out[:32] == 2**64 - 1).all()


def test_barriers_that_never_meet():
    body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra $a; bar.sync 0; bra $end; $a: bar.sync 0; bar.sync 0; $end:"
    with pytest.raises(SimulationError, match="wait for each other"):
        run(body, threads=64)


@pytest.mark.parametrize(
    ("mode", "lane", "clamp", "wanted"),
    [
        ("bfly", 1, 0x1F, lambda i: i ^ 1),
        ("idx", 3, 0x1F, lambda i: 0 * i + 3),
        ("idx", 2, 0x181F, lambda i: i // 8 * 8 + 2),
        ("up", 2, 0, lambda i: np.where(i >= 2, i - 2, i)),
        ("down", 5, 0x1F, lambda i: np.where(i + 5 <= 31, i + 5, i)),
    ],
)
def test_shuffles(mode, lane, clamp, wanted):
    body = f"shfl.sync.{mode}.b32 %r1, %r0, {lane}, {clamp}, -1;"
    body += "cvt.u64.u32 %rd4, %r1; st.global.b64 [%rd1], %rd4;"
    assert (run(body) == wanted(np.arange(32))).all()


@pytest.mark.parametrize("waits", [True, False])
def test_asynchronous_copies_land_when_waited_for(waits):
    wait = "cp.async.wait_group 0;" if waits else ""
    body = f"""
        shl.b32 %r1, %r0, 3; mov.b32 %r2, smem; add.s32 %r1, %r1, %r2;
        cp.async.ca.shared.global [%r1], [%rd0], 8; cp.async.commit_group; {wait}
        ld.shared.b64 %rd4, [%r1]; st.global.b64 [%rd1], %rd4;
    """
    values = np.arange(32, dtype=np.uint64)[:, None]
    if waits:
        assert (run(body, values) == values[:, 0]).all()
    else:
        with pytest.raises(SimulationError, match="a copy in flight"):
            run(body, values)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.b64 %rd4, [%rd0+8192];", "outside of every buffer"),
        ("ld.global.b32 %r1, [%rd0+2];", "no multiple of 4"),
        ("mov.u32 %r1, 1024; st.shared.b32 [%r1], %r0;", "outside of the 1024 bytes"),
        ("mov.u32 %r1, 6; ld.shared.v2.b32 {%r2, %r3}, [%r1];", "no multiple of 8"),
        ("$l: bra $l;", "does not end"),
    ],
)
def test_accesses_that_a_gpu_would_not_forgive(body, message, monkeypatch):
    monkeypatch.setattr("helpers.ptx.machine._LIMIT", 1000)
    with pytest.raises(SimulationError, match=message):
        run(body)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("ld.shared.b32 %r2, [%r1];", "reads what another warp wrote"),
        ("add.s32 %r3, %r0, 9; st.shared.b32 [%r1], %r3;", "overwrites what another warp wrote"),
    ],
)
def test_races_between_warps(second, message):
    """Thread i writes word i; then thread i uses word i + 32, which another warp wrote."""
    first = "shl.b32 %r1, %r0, 2; st.shared.b32 [%r1], %r0; add.s32 %r1, %r1, 128; and.b32 %r1, %r1, 255;"
    run(first + "bar.sync 0;" + second, threads=64)
    with pytest.raises(SimulationError, match=message):
        run(first + second, threads=64)
    same_warp = (
        "shl.b32 %r1, %r0, 2; st.shared.b32 [%r1], %r0; xor.b32 %r1, %r1, 4; ld.shared.b32 %r2, [%r1];"
    )
    run(same_warp, threads=64)


def test_a_write_over_what_another_warp_reads():
    first = "shl.b32 %r1, %r0, 2; xor.b32 %r2, %r1, 128; st.shared.b32 [%r1], %r0;"
    first += "bar.sync 0; ld.shared.b32 %r3, [%r2];"
    run(first + "bar.sync 0; st.shared.b32 [%r1], 7;", threads=64)
    with pytest.raises(SimulationError, match="overwrites what another warp reads"):
        run(first + "st.shared.b32 [%r1], 7;", threads=64)


def test_unknown_instructions_are_refused():
    for body in (
        "atom.global.add.u32 %r1, [%rd0], 1;",
        "add.sat.f32 %r1, %r1, %r1;",
        "cp.async.bulk.wait_all;",
    ):
        with pytest.raises(NotImplementedError, match="not simulated"):
            run(body)
