"""The peers do the same work, and a mistake in one would be seen."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from fastgan.kernels import cpu

from bench import bench_generate, bench_step, parity, peers
from bench.cases import Case, Rows
from bench.options import Options
from bench.peers import native, ops, sgemm
from bench.peers.files import Fastgan, File, Numpy
from bench.peers.noise import Noise
from bench.peers.reference import Generated
from bench.plan import Contender
from bench.protocol import Replayed
from fastgan.errors import UserError
from fastgan.models import init_parameters

SMALL = Case(batch=24, hidden=32, latent=10, features=40)
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.compile's and JAX's own making


def native_or_skip() -> ModuleType:
    try:
        return cpu.native()
    except UserError as error:
        pytest.skip(str(error))


def replay(peer: str, case: Case = SMALL) -> Replayed:
    return peers.create(Contender(peer, peer, case)).replay(case.recorded())


def initial(case: Case) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in init_parameters(case.spec, 0).items()}


NATIVE = ["native.Step", "native.OneStepCalls", "native.LoadAndExport"]
TRAINED = [
    *NATIVE,
    "torch_eager.Eager",
    "torch_eager.EagerDefault",
    "torch_compile.Compiled",
    "torch_compile.CompiledWhole",
    pytest.param("jax_scan.JaxScan", marks=needs_jax),
]


@pytest.fixture
def quickly(monkeypatch):
    """Let torch.compile trace and differentiate, but not generate code, which takes half a minute.

    Before any timing, the compiled code itself goes through the same check (bench/measure.py).
    """
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **kw: compile_(f, **kw | dict(backend="aot_eager", mode=None))
    )


@pytest.mark.parametrize("peer", TRAINED)
def test_peers_do_the_same_work(peer, quickly):
    if peer in NATIVE:
        native_or_skip()
    parity.check(peer, replay(peer), replay("reference.Reference"), initial(SMALL))


def test_the_default_recipe_does_the_references_work():
    native_or_skip()
    case = replace(SMALL, recipe="default")
    got, wanted = replay("native.Step", case), replay("reference.Reference", case)
    parity.check("native", got, wanted, initial(case))
    assert not parity.compare(got, replay("reference.Reference"), initial(case)).within


@pytest.mark.gpu
@pytest.mark.parametrize("peer", [*TRAINED[len(NATIVE) :], "torch_graph.Graphed", "cuda.CudaStep"])
def test_peers_do_the_same_work_on_a_gpu(peer):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    got = replay(peer, replace(SMALL, device="cuda"))
    assert parity.check(peer, got, replay("reference.Reference"), initial(SMALL)).within


def test_every_trained_contender_is_tested():
    groups = bench_step.groups(Options())
    found = {c.peer for g in groups for c in g.contenders if c.trains}
    names = {getattr(p, "values", (p,))[0] for p in TRAINED}
    assert found - names == {"torch_compile.CompiledMaxAutotune"}  # Compiled with another mode


@pytest.mark.parametrize("peer", ["torch_eager.Eager", pytest.param("jax_scan.JaxScan", marks=needs_jax)])
def test_timing_leaves_no_trace(peer):
    """A replay after timed steps is the replay of a fresh peer."""
    one = peers.create(Contender(peer, peer, SMALL))
    one.reset()
    one.run(3)
    again = one.replay(SMALL.recorded())
    np.testing.assert_array_equal(again.losses, replay(peer).losses)


MISTAKES = {
    "slope": dict(slope=0.19),
    "first beta": dict(beta1=0.8),
    "second beta": dict(beta2=0.99),
    "epsilon": dict(eps=1e-4),
    "learning rate": dict(g_lr=2.02e-4),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake):
    wrong = replace(SMALL)
    wrong.__dict__["config"] = replace(SMALL.config, **MISTAKES[mistake])
    wrong.__dict__["spec"] = type(SMALL.spec).of(wrong.config, SMALL.features, 0)
    got, wanted = replay("torch_eager.Eager", wrong), replay("reference.Reference")
    with pytest.raises(parity.ParityError, match="does other work"):
        parity.check("eager", got, wanted, initial(SMALL))


def test_one_unit_that_is_off_passes_and_all_of_them_do_not():
    wanted, start = replay("reference.Reference"), initial(SMALL)
    name = "generator.layers.1.weight"
    for share, within in ((1, True), (32, False)):
        parameters = {k: v.copy() for k, v in wanted.parameters.items()}
        parameters[name][:share] += 0.01 * (parameters[name][:share] - start[name][:share])
        assert parity.compare(Replayed(wanted.losses, parameters), wanted, start).within == within


def test_other_data_missing_tensors_and_nan_are_seen():
    wanted, start = replay("reference.Reference"), initial(SMALL)
    steps = SMALL.recorded()
    eager = peers.create(Contender("", "torch_eager.Eager", SMALL))
    got = eager.replay([steps[1], steps[0], *steps[2:]])
    assert not parity.compare(got, wanted, start).within
    with pytest.raises(parity.ParityError, match="tensors"):
        parity.compare(Replayed(wanted.losses, {}), wanted, start)
    broken = {k: np.full_like(v, math.nan) for k, v in wanted.parameters.items()}
    assert not parity.compare(Replayed(wanted.losses, broken), wanted, start).within


@pytest.mark.parametrize("case", [Case(), SMALL, Case(batch=7, hidden=3)])
def test_plain_sgemm_has_the_flops_of_the_step(case):
    assert sum(2 * m * k * n for m, k, n, _ in sgemm.step_shapes(case)) == case.work.flops


def test_work_of_a_step_and_of_a_row():
    """Counted by hand: z[10] -> 32 -> 32 -> 40 and 40 -> 32 -> 32 -> 1."""
    parameters = (10 * 32 + 32) + (32 * 32 + 32) + (32 * 40 + 40) + (40 * 32 + 32) + (32 * 32 + 32) + (32 + 1)
    assert SMALL.work.bytes == 2 * 3 * 4 * parameters + 24 * 40
    row = Rows(hidden=32, latent=10, features=40, dtype="float32").work
    assert row.flops == 2 * (10 * 32 + 32 * 32 + 32 * 40) and row.bytes == 4 * 40


@pytest.mark.parametrize("case", [ops.Dense(batch=5, inputs=7, outputs=3), ops.Bce(batch=9, tensor=True)])
def test_fused_and_plain_ops_lie_in_the_same_place(case):
    fused, plain = (Contender(name, f"ops.{name}", case) for name in ("Auto", "Plain"))
    assert fused.process == plain.process and fused.keeps_memory
    assert all(a is b for a, b in zip(*(kind(case).arguments for kind in (ops.Auto, ops.Plain)), strict=True))


def test_work_of_ops():
    dense = ops.Dense(batch=2, inputs=3, outputs=5)
    assert dense.work.flops == 2 * 2 * 3 * 5 and dense.work.bytes == 4 * (2 * 3 + 3 * 5 + 5 + 2 * 5)
    assert replace(dense, backward=True).work.flops == 3 * dense.work.flops


NOISE = ["Native", "Reference", "Torch", "Numpy", pytest.param("Jax", marks=needs_jax)]


@pytest.mark.parametrize("name", NOISE)
def test_all_noise_is_standard_normal(name):
    if name == "Native":
        native_or_skip()
    peer = peers.create(Contender(name, f"noise.{name}", Noise(threads=1, rows=64, columns=100)))
    peer.reset()
    assert peer.run(1) == 6400
    out = np.asarray(peer.out)
    assert out.dtype == np.float32 and abs(out.mean()) < 0.06 and abs(out.std() - 1.0) < 0.05
    first = out.copy()
    peer.run(1)
    assert not np.array_equal(first, np.asarray(peer.out))


@pytest.mark.parametrize("kind", ["idx.gz", "idx", "npy"])
def test_readers_read_the_same(kind):
    case = File(kind=kind, rows=20)
    np.testing.assert_array_equal(Fastgan(case).read(), Numpy(case).read())


ROWS = Rows(hidden=8, latent=4, features=6, dtype="float32")
GENERATES = ["native.Rows", "torch_rows.Eager", pytest.param("jax_rows.Jit", marks=needs_jax)]


@pytest.mark.parametrize("peer", GENERATES)
def test_the_same_rows_are_generated(peer):
    if peer in ("native.Rows",):
        native_or_skip()
    one = peers.create(Contender(peer, peer, ROWS))
    z = ROWS.noise()
    wanted = Generated(ROWS).rows(z)
    assert parity.check_rows(peer, one.rows(z), wanted) < parity.ROW_TOLERANCE
    one.reset()
    assert one.run(5) == len(z) == 4096
    assert parity.check_rows(peer, one.rows(z), wanted) < parity.ROW_TOLERANCE
    for wrong in (wanted[::-1], wanted + 2e-5, wanted[:-1], np.full_like(wanted, math.nan)):
        with pytest.raises(parity.ParityError, match="rows"):
            parity.check_rows(peer, one.rows(z), wrong)


def test_rows_in_bytes_are_within_half_a_step():
    native_or_skip()
    case = replace(ROWS, dtype="uint8")
    wanted, got = Generated(case).rows(case.noise()), native.Rows(case).rows(case.noise())
    assert got.dtype == np.uint8 and parity.check_rows("bytes", got, wanted) <= 0.5 / 255 + 1e-5
    for wrong in (got + np.uint8(1), got[::-1], np.zeros_like(got)):
        with pytest.raises(parity.ParityError, match="other rows"):
            parity.check_rows("bytes", wrong, wanted)


@pytest.mark.parametrize(("threads", "some"), [(2, ["2 threads", "1 thread"]), (1, ["1 thread"])])
@pytest.mark.parametrize("quick", [True, False])
def test_rows_are_held_on_one_thread_too(threads, some, quick):
    found = bench_generate.groups(Options(threads=threads, quick=quick))
    titles = [g.title for g in found if any(row.low for row in g.rows)]
    assert titles == [f"rows, hidden width 128, {t}" for t in some]
    assert len({g.title for g in found}) == len(found) == (1 if quick else 5) + (threads > 1)


def test_every_contender_that_generates_is_tested():
    found = {c.peer for g in bench_generate.groups(Options()) for c in g.contenders if c.generates}
    assert found == {getattr(p, "values", (p,))[0] for p in GENERATES}
