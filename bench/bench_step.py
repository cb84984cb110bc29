"""The training step: against other ways to take it, against the machine's limits, and against itself."""

from __future__ import annotations

from dataclasses import asdict, replace

from bench.cases import Case
from bench.options import Options
from bench.peers.limits import Limit
from bench.peers.sgemm import Products
from bench.plan import Contender, Group, Row

BATCHES = (1, 8, 32, 128, 512, 4096)
COMPILED = (32, 128, 512)  # the batches that are worth a compiler's minute
QUICK = (32, 128)
WIDTHS = (64, 256, 512, 1024)
LARGE = 256 << 20  # bytes, which no cache holds

# Issue 3: at batch 32, 128, 512
TARGETS = {
    32: (2.0, 4.5),
    128: (1.5, 2.4),
    512: (1.4, 1.9),
}  # JAX; eager with fused Adam and all compiled forms


def fastgan(case: Case, how: str = "") -> Contender:
    """Return fastgan's engine on a case; ``how`` names another way to call it."""
    ways = {"": "Step", ", a call per step": "OneStepCalls", ", load + 100 steps + export": "LoadAndExport"}
    peer = "cuda.CudaStep" if case.device == "cuda" else "native." + ways[how]
    return Contender("fastgan" + how, peer, case, trains=True)


def jax(case: Case) -> Contender:
    """Return JAX on a case."""
    return Contender("JAX jit + lax.scan", "jax_scan.JaxScan", case, trains=True)


def eager(case: Case) -> Contender:
    """Return PyTorch as it comes, with the fused Adam."""
    return Contender("torch eager, Adam(fused=True)", "torch_eager.Eager", case, trains=True)


def eager_default(case: Case) -> Contender:
    """Return PyTorch as it comes, with the default Adam."""
    return Contender("torch eager, default Adam", "torch_eager.EagerDefault", case, trains=True)


def graphed(case: Case) -> Contender:
    """Return the eager step captured in a CUDA graph."""
    return Contender("torch eager in a CUDA graph", "torch_graph.Graphed", case, trains=True)


def compiled(case: Case, form: str) -> Contender:
    """Return the step under torch.compile, in one of its forms."""
    titles = {
        "Compiled": "torch.compile",
        "CompiledMaxAutotune": "torch.compile, max-autotune",
        "CompiledWhole": "torch.compile, one graph",
    }
    return Contender(titles[form], f"torch_compile.{form}", case, trains=True, alone=True)


def sgemm(case: Case) -> Contender:
    """Return the step's matrix products alone."""
    return Contender("plain SGEMM of its shapes", "sgemm.StepProducts", Products(**asdict(case)))


def groups(options: Options) -> list[Group]:
    """Return all groups of the suite."""
    batches = options.batches or (QUICK if options.quick else BATCHES)
    base = Case(threads=options.threads, device=options.device)
    out = [_peers(replace(base, batch=b), options.quick) for b in batches]
    targeted = [b for b in batches if b in TARGETS and not (options.quick and b != 128)]
    out += [_recipe(replace(base, batch=b)) for b in targeted]
    widths = [] if options.quick else [_width(replace(base, hidden=w)) for w in WIDTHS]
    if options.device == "cuda":
        return [*out, _gpu_limits(base), *widths]
    threads = [_threads(base, options.threads, options.quick)] if options.threads > 1 else []
    return [*out, _limits(base), _odd(base), *widths, *threads, _calls(base)]


def _peers(case: Case, quick: bool) -> Group:
    ours, (jax_low, torch_low) = fastgan(case), TARGETS.get(case.batch, (None, None))
    rows = [
        Row(jax(case), ours, low=jax_low),
        Row(eager(case), ours, low=torch_low),
        Row(eager_default(case), ours),
    ]
    if case.batch in COMPILED and not quick:
        forms = ("Compiled", "CompiledWhole")
        rows += [Row(compiled(case, form), ours, low=torch_low) for form in forms]
    if case.batch == 128 and not quick:
        rows.append(Row(compiled(case, "CompiledMaxAutotune"), ours))
    if case.device == "cuda":
        rows.append(Row(graphed(case), ours))
    rows.append(Row(sgemm(case), ours))
    title = f"batch {case.batch}, article recipe, {_place(case)}"
    return Group("peers", title, rows, figure={"batch": case.batch})


def _recipe(case: Case) -> Group:
    default, article = (replace(fastgan(replace(case, recipe=r)), title=r) for r in ("default", "article"))
    row = Row(default, article, "default recipe / article recipe", high=1.3)
    return Group("recipe", f"recipes, batch {case.batch}, {_place(case)}", [row])


def _limits(case: Case) -> Group:
    ours, alone = fastgan(case), replace(fastgan(replace(case, threads=1)), title="fastgan, 1 thread")
    peak, peak_alone = (
        Contender("multiply-adds in registers" + more, "limits.Registers", Limit(threads=c.case.threads))
        for c, more in ((ours, ""), (alone, ", 1 thread"))
    )
    tiles = Contender("float32 products on tiles", "limits.Tiles", Limit(threads=case.threads))
    products = Contender("products of the step, with their epilogues", "native.Products", case)
    share = dict(scale=case.work.flops, percent=True)
    rows = [
        Row(sgemm(case), ours, "plain SGEMM of its shapes / whole step", 1.0),
        Row(peak, products, "the step's products' share of the multiply-add peak", 0.8, **share),
        Row(peak, ours, "whole step's share of the multiply-add peak", **share),
    ]
    if case.threads > 1:
        rows.append(Row(peak_alone, alone, "the same, 1 thread", **share))
    rows += [
        Row(tiles, products, "the step's products' share of the tile peak", **share),
        Row(tiles, ours, "whole step's share of the tile peak", **share),
    ]
    return Group("limits", f"limits, batch {case.batch}, {_place(case)}", rows, profile=ours)


def _gpu_limits(case: Case) -> Group:
    ours, where = fastgan(case), dict(threads=case.threads, device=case.device)
    product, tf32, copy, launch = (
        Contender(title, f"limits.{peer}", Limit(**where, span=span))
        for title, peer, span in (
            ("a large float32 product, a flop", "LargeProduct", 0),
            ("three in TF32 for it, a flop", "Tf32Products", 0),
            ("a large copy, a byte", "Copy", LARGE),
            ("the smallest kernel in a graph", "Launches", 0),
        )
    )
    share = dict(scale=case.work.flops, percent=True)
    rows = [
        Row(sgemm(case), ours, "plain SGEMM of its shapes / whole step", 1.0),
        Row(product, ours, "whole step's share of a large float32 product", **share),
        Row(tf32, ours, "whole step's share of three products in TF32", **share),
    ]
    return Group("limits", f"limits, batch {case.batch}, {_place(case)}", rows, [copy, launch])


def _odd(base: Case) -> Group:
    odd = replace(
        fastgan(replace(base, hidden=100, batch=100, features=50)), title="100 wide, batch 100, 50 features"
    )
    even = fastgan(replace(base, hidden=96, batch=96, features=48, latent=96))
    even = replace(even, title="96 wide, batch 96, 48 features")
    scale = odd.case.work.flops / even.case.work.flops
    row = Row(even, odd, "GFLOP/s of odd shapes / round ones", 0.75, scale=scale, percent=True)
    return Group("odd", f"odd shapes, {_place(base)}", [row])


def _width(case: Case) -> Group:
    ours, low = fastgan(case), 1.3 if case.hidden in (256, 512) else None
    rows = [Row(jax(case), ours, low=low), Row(eager(case), ours), Row(sgemm(case), ours)]
    title = f"hidden width {case.hidden}, batch {case.batch}, {_place(case)}"
    return Group("widths", title, rows, figure={"hidden": case.hidden})


def _threads(base: Case, threads: int, quick: bool) -> Group:
    counts = [1, *(2**i for i in range(1, 10) if 2**i < threads), threads]
    rows, also = [], []
    for peer in (fastgan, sgemm) if quick else (fastgan, jax, eager, sgemm):
        one, *more = (
            replace(peer(replace(base, threads=n)), title=f"{peer(base).title}, {n}") for n in counts
        )
        also.append(one)
        for n, many in zip(counts[1:], more, strict=True):
            targets = dict(low=1.8, high=2.0) if peer is fastgan and n == 2 else {}
            if peer is not fastgan:
                targets = dict(better="nothing")
            rows.append(Row(one, many, f"{peer(base).title}: 1 thread / {n}", **targets))
    return Group("threads", f"threads, batch {base.batch}", rows, also, figure={"threads": counts})


def _calls(case: Case) -> Group:
    long = fastgan(case)
    rows = [
        Row(fastgan(case, ", a call per step"), long, "a call per step / one long call", high=1.1),
        Row(
            fastgan(case, ", load + 100 steps + export"),
            long,
            "load + 100 steps + export / the steps alone",
            high=1.1,
        ),
    ]
    return Group("calls", f"calls, batch {case.batch}, {_place(case)}", rows)


def _place(case: Case) -> str:
    return "GPU" if case.device == "cuda" else f"{case.threads} thread{'s' * (case.threads > 1)}"


def test_step(feed, benchmark):
    feed(benchmark)
