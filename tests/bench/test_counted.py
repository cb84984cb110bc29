"""What a peer says that it did is held against the traces it left: work that was left out is never timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench import peers, suites
from bench.cases import ROWS_PER_CALL, Case, Rows
from bench.options import Options
from bench.parity import ParityError
from bench.peers import files, limits, native, ops, sgemm, tables, torch_eager, torch_rows, virtual
from bench.peers.limits import Limit
from bench.peers.noise import Native, Noise, Numpy, Reference, Torch
from bench.plan import Contender
from bench.team import Team, WorkerError
from bench.worker import _Worker
from tests.bench.test_peers import native_or_skip, needs_jax

pytestmark = pytest.mark.filterwarnings("ignore")  # of JAX's own making
STEP = Case(batch=24, hidden=32, latent=10, features=40, threads=1, rows=50)
ROWS = Rows(hidden=8, latent=4, features=6, threads=1, rows=50, dtype="float32")
PRODUCTS = sgemm.Products(batch=8, hidden=8, latent=4, features=6, threads=1)
UNCOUNTED = {"startup.Process", "startup.First"}  # every process's exit code is looked at
UNCOUNTED |= {"limits.Registers", "limits.Tiles"}  # native code counts (test_limits.py)
UNCOUNTED |= {"ops.Auto", "ops.Plain"}  # before they are timed: below


def measure(peer: str, case: Any) -> dict[str, float]:
    worker, contender = _Worker(), Contender("", peer, case)
    worker.peers[contender] = peers.create(contender)
    return worker.measure(contender, 0.002)


HONEST = {
    "native.Step": STEP,
    "native.OneStepCalls": STEP,
    "native.LoadAndExport": STEP,
    "native.Products": STEP,
    "torch_eager.Eager": STEP,
    "torch_eager.EagerDefault": STEP,
    "native.Rows": ROWS,
    "torch_rows.Eager": ROWS,
    "sgemm.StepProducts": PRODUCTS,
    "sgemm.GeneratorProducts": ROWS,
    "limits.Copy": Limit(threads=1, span=4096),
    "noise.Native": Noise(threads=1, rows=8),
    "noise.Reference": Noise(threads=1, rows=8),
    "noise.Torch": Noise(threads=1, rows=8),
    "noise.Numpy": Noise(threads=1, rows=8),
    "files.Fastgan": files.File(threads=1, rows=20),
    "files.Numpy": files.File(threads=1, rows=20),
    "virtual.Loader": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.WholeBatches": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.ShuffledBatches": virtual.Images(threads=1, rows=32, batch=8, shuffle=True),
    "virtual.Png": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.Npy": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.NpyArray": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.NpyBatches": virtual.Images(threads=1, rows=32, batch=8),
    "virtual.Stream": virtual.Columns(threads=1),
    "virtual.DuckDb": virtual.Columns(threads=1),
    "virtual.Polars": virtual.Columns(threads=1),
    "tables.Here": virtual.Columns(threads=1),
    "jax_scan.JaxScan": STEP,
    "jax_rows.Jit": ROWS,
    "noise.Jax": Noise(threads=1, rows=8),
}
ELSEWHERE = {"tables.Flight", "torch_compile.Compiled", "torch_compile.CompiledMaxAutotune"}
ELSEWHERE |= {"torch_compile.CompiledWhole"}  # compilers take long; see below


def test_every_contender_counts():
    found = {c.peer for some in suites.groups(Options()).values() for g in some for c in g.contenders}
    assert found - UNCOUNTED <= HONEST.keys() | ELSEWHERE


@pytest.mark.parametrize("peer", HONEST)
def test_who_does_what_it_says_is_timed(peer):
    if peer.startswith("native.") or peer == "noise.Native":
        native_or_skip()
    if "jax" in peer.lower():
        pytest.importorskip("jax")
    assert measure(peer, HONEST[peer])["seconds"] > 0.0


def test_one_graph_counts_its_steps(monkeypatch):
    monkeypatch.setattr("torch.compile", lambda f, **_: f)
    one = peers.create(Contender("", "torch_compile.CompiledWhole", STEP))
    one.reset()
    assert one.run(3) == 3 == one.counted()


# ---- planted


def half(run: Callable) -> Callable:
    """Do half of the units and say that it were all."""

    def planted(self: Any, units: int) -> int:
        run(self, -(-units // 2))
        return max(units, 2)

    return planted


def half_of_each_scan(self: tables.Here, units: int) -> int:
    for i in range(scans := -(-units // self.rows)):
        for batch in self.table[i * self.rows : i * self.rows + self.rows // 2].batches():
            self.read += batch.num_rows
    return scans * self.rows


def half_of_each_call(self: native.Rows, units: int) -> int:
    for i in range(calls := -(-units // ROWS_PER_CALL)):
        some = ROWS_PER_CALL // 2
        self.sampler.rows(i * ROWS_PER_CALL, some, out=self.out[:some])
        self.made += ROWS_PER_CALL
    return calls * ROWS_PER_CALL


def nothing(self: Any, units: int) -> int:
    return units


def all_but_one_product(self: sgemm.StepProducts, units: int) -> int:
    products, self.products = self.products, self.products[1:]
    try:
        return sgemm_run(self, units)
    finally:
        self.products = products


sgemm_run, step_shapes = sgemm.StepProducts.run, sgemm.step_shapes
FAULTS = {
    "eager, half": ("torch_eager.Eager", torch_eager.Eager, "run", half(torch_eager.Eager.run)),
    "eager, no generator": ("torch_eager.Eager", torch_eager.Eager, "g_update", lambda self: None),
    "native, half": ("native.Step", native.Step, "run", half(native.Step.run)),
    "calls, half": ("native.OneStepCalls", native.Step, "run", half(native.Step.run)),
    "export, half": ("native.LoadAndExport", native.LoadAndExport, "run", nothing),
    "native rows, half": ("native.Rows", native.Rows, "run", half_of_each_call),
    "native rows, none": ("native.Rows", native.Rows, "run", nothing),
    "torch rows, none": ("torch_rows.Eager", torch_rows.Eager, "run", nothing),
    "sgemm, a product less": ("sgemm.StepProducts", sgemm.StepProducts, "run", all_but_one_product),
    "sgemm, half": ("sgemm.StepProducts", sgemm.StepProducts, "run", half(sgemm_run)),
    "sgemm, shapes": (
        "sgemm.StepProducts",
        sgemm.StepProducts,
        "shapes",
        lambda s, c: sgemm.step_shapes(c)[1:],
    ),
    "copy, double": ("limits.Copy", limits.Copy, "run", lambda s, n, run=limits.Copy.run: 2 * run(s, n)),
    "copy, none": ("limits.Copy", limits.Copy, "run", nothing),
    "noise, none": ("noise.Numpy", Numpy, "fill", lambda self: None),
    "native noise, none": ("noise.Native", Native, "fill", lambda self: None),
    "torch noise, half": ("noise.Torch", Torch, "fill", lambda self: self.tensor[:4].normal_()),
    "reference noise, half": ("noise.Reference", Reference, "run", half(Reference.run)),
    "table, half": ("tables.Here", tables.Here, "run", half_of_each_scan),
    "files, none": ("files.Fastgan", files.Fastgan, "run", nothing),
    "images, none": ("virtual.Loader", virtual.Loader, "run", nothing),
    "stream, half": ("virtual.Stream", virtual.Stream, "run", half(virtual.Stream.run)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_who_does_less_is_not_timed(fault, monkeypatch):
    peer, kind, name, planted = FAULTS[fault]
    if "native" in peer.lower():
        native_or_skip()
    monkeypatch.setattr(kind, name, planted)
    with pytest.raises(ParityError, match=f"{peer} says that it did .* units; it left traces of"):
        measure(peer, HONEST[peer])


@needs_jax
def test_a_shorter_scan_is_not_timed(monkeypatch):
    from bench.peers import jax_rows, jax_scan

    class Half(jax_scan.JaxScan):
        def run(self, units: int) -> int:
            self.steps, steps = self.steps // 2, self.steps
            super().run(units)
            self.steps = steps
            return -(-units // steps) * steps

    monkeypatch.setattr(jax_scan, "JaxScan", Half)
    with pytest.raises(ParityError, match="JaxScan says"):
        measure("jax_scan.JaxScan", STEP)
    monkeypatch.undo()
    monkeypatch.setattr(jax_rows.Jit, "run", nothing)
    with pytest.raises(ParityError, match="Jit says"):
        measure("jax_rows.Jit", ROWS)


def test_a_server_that_sends_half_is_seen(monkeypatch):
    monkeypatch.setattr(tables.Flight, "run", half_of_each_scan)
    one = tables.Flight(virtual.Columns(threads=1))
    try:
        one.reset()
        assert one.run(1) == 2 * one.counted()
    finally:
        one.server.kill()
        one.server.communicate()


OPS = [ops.Dense(batch=5, inputs=7, outputs=3), ops.Bce(batch=9)]


@pytest.mark.parametrize("case", OPS, ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_results_of_ops_are_those_of_the_run_that_is_timed(monkeypatch, case, backward):
    case, run = replace(case, backward=backward), ops._Calls.run
    assert len(ops.Auto(case).errors()) == (1 if not backward else 4 if isinstance(case, ops.Dense) else 2)
    faults = [nothing, lambda self, units: run(self, units // 2) and units]

    def forward_only(self: ops._Calls, units: int) -> int:
        self.backward = False
        run(self, units)
        self.backward = True
        return units

    for planted in [*faults, forward_only] if backward else faults:
        monkeypatch.setattr(ops._Calls, "run", planted)
        with pytest.raises(ParityError, match=r"(Auto|Plain) (says that it did|gives no gradients)"):
            ops.Auto(case).errors()


def test_a_team_tells_a_lie_from_a_peer_that_is_not_here(monkeypatch):
    copy = Contender("copy", "limits.Copy", Limit(threads=1, span=4096))
    with Team() as team:
        for kind, raised in (("ParityError", ParityError), ("RuntimeError", WorkerError)):
            monkeypatch.setattr("bench.team.json.loads", lambda _, kind=kind: {"error": "so", "kind": kind})
            with pytest.raises(raised, match="so"):
                team.rounds({copy: 0.01}, 1)
            monkeypatch.undo()
