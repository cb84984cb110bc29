"""The limits of arithmetic: the fastest unit counts, and what a flop is on each."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from bench import machine
from bench.cases import Case
from bench.measure import _limits
from bench.peers import limits, ops
from bench.peers.limits import Arithmetic, LargeProduct, Limit, Registers, Tf32Products, Tiles
from bench.peers.sgemm import Products, step_shapes
from bench.plan import Contender
from tests.bench.test_peers import native_or_skip

ONE = Limit(threads=1)


def tiles_or_skip(case: Limit = ONE) -> Tiles:
    native_or_skip()
    try:
        return Tiles(case)
    except RuntimeError as error:
        pytest.skip(str(error))


def rate(unit: Registers | LargeProduct, flops: int) -> float:
    """Return flops a second, the best of some tries."""
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        best = max(best, unit.run(flops) / (time.perf_counter() - start))
    return best


def test_the_call_does_more_than_the_unit_says_where_it_must(monkeypatch):
    native_or_skip()
    wide = Registers(replace(ONE, dtype="float64"))
    asked = []
    wide.call = lambda threads, flops: asked.append(flops) or flops
    assert wide.run(4_000_000) == 4_000_000 and asked == [8_000_000]
    narrow = tiles_or_skip()
    narrow.call = wide.call
    assert narrow.run(4_000_000) == 4_000_000 and asked[1:] == [24_000_000]
    assert Tiles(replace(ONE, dtype="bfloat16")).passes == 1
    with pytest.raises(RuntimeError, match="no float64"):
        Tiles(replace(ONE, dtype="float64"))


def test_tiles_are_the_limit_where_they_are_faster():
    tiles = tiles_or_skip()
    assert rate(tiles, 10**9) > 1.2 * rate(Registers(ONE), 10**9)  # 2.7 times as fast on Sapphire Rapids
    for threads in range(1, len(machine.cores()) + 1):  # their start must not decide
        assert isinstance(Arithmetic(replace(ONE, threads=threads)).unit, Tiles)
    assert isinstance(Arithmetic(replace(ONE, dtype="float64")).unit, Registers)


def test_without_tiles_vectors_are_the_limit(monkeypatch):
    native_or_skip()
    monkeypatch.setenv("FASTGAN_ISA", "baseline" if "baseline" in limits.cpu.native().isas() else "neon")
    assert isinstance(Arithmetic(ONE).unit, Registers)
    with pytest.raises(RuntimeError, match="has no tiles"):
        Tiles(ONE)


def test_no_product_passes_the_limit():
    """Sixteen bits or 32 or 64: PyTorch's product is slower than what is called its limit."""
    native_or_skip()
    for dtype in ("float32", "bfloat16", "float64"):
        limit, a = Arithmetic(replace(ONE, dtype=dtype)), torch.ones(512, 512, dtype=getattr(torch, dtype))

        class Product:
            def run(self, flops, a=a):
                for _ in range(max(1, flops // (2 * 512**3))):
                    a @ a
                return max(1, flops // (2 * 512**3)) * 2 * 512**3

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert rate(Product(), 10**9) < 1.2 * rate(limit, 10**9), dtype
        finally:
            torch.set_num_threads(threads)


def test_large_products_leave_the_precision_as_it_was(monkeypatch):
    monkeypatch.setattr(limits, "_SIDE", 8)
    monkeypatch.setattr(limits, "_PRODUCT", 2 * 8**3)
    before, seen = torch.get_float32_matmul_precision(), []
    mm = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda *a, **k: seen.append(torch.get_float32_matmul_precision()) or mm(*a, **k)
    )
    assert LargeProduct(ONE).run(2000) == 2 * 1024 and Tf32Products(ONE).run(1024) == 1024
    assert seen == ["highest"] * 2 + ["high"] * 3 and torch.get_float32_matmul_precision() == before


def test_work_is_held_against_the_limit_of_its_dtype():
    case = ops.Dense(batch=128, threads=1, dtype="bfloat16")
    assert _limits(Contender("", "ops.Auto", case), case.work)["arithmetic"].case.dtype == "bfloat16"


def test_plain_products_read_and_write_their_matrices_only():
    assert Products().work.flops == Case().work.flops
    assert Products(batch=1).work.bytes < 0.7 * Case(batch=1).work.bytes  # which has moments, too
    one = Products(batch=1, hidden=1, latent=1, features=1)
    assert one.work.bytes == 4 * sum(m * k + k * n + m * n for m, k, n, _ in step_shapes(one))
