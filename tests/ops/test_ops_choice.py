"""What auto takes, and that it can say why."""

from __future__ import annotations

import itertools
import platform
from types import SimpleNamespace

import pytest
import torch
from fastgan.kernels import cpu as kernels
from helpers import core
from helpers.ops_cases import Bce, Dense, plain_bce, plain_dense
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan.errors import UserError
from fastgan.ops import TIMED, Timed, bce_with_logits, choice, dense, explain, linear_leaky_relu
from fastgan.ops.backends import cpu

AMD, INTEL = ("amd", "avx2"), ("intel", "avx512")
WIDTHS = (1, 2, 3, 255, 256, 257, 1023, 1024, 1025, 4096)


@pytest.fixture(autouse=True)
def on(monkeypatch):
    """Say which processor this is; without a word, one that has been timed, with as many threads as then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)

    def here(maker, isa):
        there_is = SimpleNamespace(maker=lambda: maker, isa=lambda: isa)
        monkeypatch.setattr(kernels, "native", lambda: there_is)
        choice.processor.cache_clear()

    here(*AMD)
    yield here
    choice.processor.cache_clear()
    torch.set_num_threads(threads)


@pytest.fixture
def native_calls(monkeypatch):
    """The names of the native functions that run, in order."""
    calls = []

    def watch(name, function):
        def run(*args):
            calls.append(name)
            return function(*args)

        return run

    for name in ("dense_fwd", "dense_bwd", "bce"):
        monkeypatch.setattr(cpu, name, watch(name, getattr(cpu, name)))
    return calls


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "graph", "impl"),
    [
        (1, 1, 1, True, "reference"),
        (128, 784, 128, True, "reference"),
        (4096, 64, 256, True, "cpu"),
        (4096, 64, 256, False, "cpu"),
        (4096, 64, 255, False, "reference"),
        (1024, 2, 1024, True, "cpu"),
        (1024, 1, 1024, True, "reference"),
        (511, 8, 4096, True, "reference"),
        (1024, 257, 1024, True, "reference"),
        (1024, 1024, 1024, True, "reference"),
    ],
)
def test_dense(native_calls, batch, inputs, outputs, graph, impl):
    case = Dense.random(batch, inputs, outputs)
    weight = case.weight.requires_grad_(graph)
    found = explain(linear_leaky_relu, case.x, weight, case.bias, case.slope)
    y = linear_leaky_relu(case.x, weight, case.bias, case.slope)
    assert found.impl == impl and str(found).startswith(f"{impl}: ")
    if graph:
        y.sum().backward()
    wanted = ["dense_fwd", "dense_bwd"] if graph else ["dense_fwd"]
    assert native_calls == (wanted if impl == "cpu" else [])
    weight.requires_grad_(False)
    if batch * inputs * outputs < 1 << 28:
        case.check(linear_leaky_relu)


@pytest.mark.parametrize("with_bias", [True, False])
def test_what_is_known_from_sizes_alone_is_what_would_be_chosen(monkeypatch, with_bias):
    asked = []
    monkeypatch.setattr(dense, "linear", lambda x, weight, bias: x.new_zeros(1))
    monkeypatch.setattr(
        dense, "_choose", lambda *arguments: asked.append(1) or choice.Choice("reference", "")
    )
    monkeypatch.setattr(dense, "linear_leaky_relu_reference", lambda *arguments: None)
    one = torch.zeros(())
    for batch, inputs, outputs in itertools.product((0, 1, 511, 512, 1023, 1024, 4096), WIDTHS, WIDTHS):
        x, weight, bias = one.expand(batch, inputs), one.expand(outputs, inputs), one.expand(outputs)
        asked.clear()
        linear_leaky_relu(x, weight, bias if with_bias else None)
        many = batch * outputs >= 1 << 20
        assert bool(asked) == many or inputs == 1, (batch, inputs, outputs)
        assert many or explain(linear_leaky_relu, x, weight).impl == "reference"


@pytest.mark.parametrize(
    ("count", "graph", "impl"),
    [
        (1, False, "reference"),
        ((1 << 14) - 1, False, "reference"),
        (1 << 14, False, "cpu"),
        ((1 << 16) - 1, True, "reference"),
        (1 << 16, True, "cpu"),
    ],
)
@pytest.mark.parametrize("target", [None, 1.0])
def test_bce(native_calls, count, graph, impl, target):
    case = Bce.random(count, target=target)
    logits = case.logits.requires_grad_(graph)
    assert explain(bce_with_logits, logits, case.target).impl == impl
    got, wanted = bce_with_logits(logits, case.target), plain_bce(logits, case.target, None, None, "mean")
    assert native_calls == (["bce"] if impl == "cpu" else [])
    torch.testing.assert_close(got, wanted)


LARGE = torch.ones(4096, 64), torch.ones(256, 64)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([t.double() for t in LARGE], "no native kernel computes in torch.float64"),
        ([t.bfloat16() for t in LARGE], "no native kernel computes in torch.bfloat16"),
        ([t.half() for t in LARGE], "no native kernel computes in torch.float16"),
        ([t.to("meta") for t in LARGE], "no fused kernel for this device"),
    ],
    ids=str,
)
def test_reasons(tensors, reason):
    found = explain(linear_leaky_relu, *tensors)
    assert found.impl == "reference" and reason in str(found)


@pytest.mark.parametrize(("kind", "most"), [(AMD, 256), (INTEL, 64), (("intel", "amx"), 512)], ids=str)
def test_a_dense_layer_of_many_inputs_is_pytorchs_where_its_products_are_faster(on, kind, most):
    on(*kind)
    for inputs, impl in ((2, "cpu"), (most, "cpu"), (most + 1, "reference")):
        found = explain(linear_leaky_relu, torch.ones(1024, inputs), torch.ones(1024, inputs))
        assert (found.impl, "product" in found.reason) == (impl, impl == "reference")


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (torch.float32, "no GPU has timed the Triton kernels (impl='triton' runs them)"),
        (torch.bfloat16, "no GPU has timed the Triton kernels (impl='triton' runs them)"),
        (torch.float64, "no Triton kernel computes in torch.float64"),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 1 << 17])
def test_reasons_on_a_gpu(batch, dtype, reason):
    with FakeTensorMode():
        x, weight = (torch.empty(rows, 64, dtype=dtype, device="cuda") for rows in (batch, 256))
        logits = torch.empty(batch, dtype=dtype, device="cuda")
        found = explain(linear_leaky_relu, x, weight), explain(bce_with_logits, logits, 1.0)
    assert all(c.impl == "reference" and reason in c.reason for c in found)


LOGITS = torch.ones(1 << 20)


@pytest.mark.parametrize(
    ("kind", "threads", "reason"),
    [
        (("intel", "avx2"), 1, "on such a processor (intel avx2)"),
        (("amd", "avx512"), 1, "on such a processor (amd avx512)"),
        (("other", "neon"), 1, "on such a processor (other neon)"),
        (AMD, 3, "with more than 2 threads"),
    ],
    ids=str,
)
def test_what_nobody_has_timed_is_not_taken(on, native_calls, kind, threads, reason):
    on(*kind)
    torch.set_num_threads(threads)
    for op, arguments in ((linear_leaky_relu, LARGE), (bce_with_logits, (LOGITS, 1.0))):
        found = explain(op, *arguments)
        op(*arguments)
        assert (found.impl, native_calls) == ("reference", []) and reason in found.reason


def test_without_a_native_module(monkeypatch):
    def native():
        raise UserError("the native CPU engine", "no module", "one")

    monkeypatch.setattr(kernels, "native", native)
    choice.processor.cache_clear()
    assert "no native module" in explain(linear_leaky_relu, *LARGE).reason


def test_who_has_timed_it_may_say_so(on, monkeypatch):
    on("other", "neon")
    torch.set_num_threads(3)
    monkeypatch.setitem(TIMED, ("other", "neon"), Timed(inputs=64, threads=3))
    assert explain(linear_leaky_relu, *LARGE).impl == explain(bce_with_logits, LOGITS, 1.0).impl == "cpu"


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names of x86-64's instruction sets"
)
def test_the_table_is_of_processors_that_there_are():
    makers, isas = (set(words) for words in zip(*TIMED, strict=True))
    assert makers <= {"amd", "intel"} and isas <= set(core.ISAS)


def test_products_that_may_be_rounded_are_left_to_pytorch():
    try:
        torch.set_float32_matmul_precision("medium")
        found = explain(linear_leaky_relu, *LARGE), explain(bce_with_logits, LOGITS, 1.0)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [c.impl for c in found] == ["reference", "cpu"] and "bfloat16" in found[0].reason


# PyTorch's forward mode compiles some of its own formulas by what it has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_reasons_around_the_call():
    seen = []

    def f(x):
        seen.append(explain(linear_leaky_relu, x, LARGE[1]).reason)
        return linear_leaky_relu(x, LARGE[1])

    torch.func.vmap(f)(LARGE[0][None])
    torch.func.jvp(f, LARGE[:1], LARGE[:1])
    with torch.autocast("cpu"):
        f(LARGE[0])
    assert ["torch.func" in seen[0], "torch.func" in seen[1], "autocast" in seen[2]] == [True] * 3


@pytest.mark.parametrize("bias", [torch.ones(1, 256), torch.ones(1), torch.ones(4096, 256), torch.ones(())])
def test_a_bias_that_is_broadcast_is_pytorchs(bias):
    x, weight = torch.randn(4096, 64), torch.randn(256, 64)
    assert "the bias is not" in explain(linear_leaky_relu, x, weight, bias).reason
    torch.testing.assert_close(linear_leaky_relu(x, weight, bias), plain_dense(x, weight, bias, 0.01))


def test_wrong_shapes_give_pytorchs_own_errors():
    for x, weight in ((torch.ones(4096, 63), LARGE[1]), (torch.ones(0, 3), torch.ones(2, 4))):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            linear_leaky_relu(x, weight)
    with pytest.raises(ValueError, match="Target size"):
        bce_with_logits(torch.ones(3), torch.ones(4))


def test_only_the_ops_are_explained():
    with pytest.raises(UserError, match=r"^op: got plain_dense; wanted one of"):
        explain(plain_dense, *LARGE)


@pytest.mark.parametrize("op", [linear_leaky_relu, bce_with_logits])
def test_what_was_asked_for_by_name(op):
    arguments = LARGE if op is linear_leaky_relu else (LOGITS, 1.0)
    assert explain(op, *arguments, impl="auto") == explain(op, *arguments)
    for impl in ("reference", "cpu"):
        assert str(explain(op, *arguments, impl=impl)) == f"{impl}: asked for by name"


MISTAKES = {
    "impl": (LARGE, {"impl": "cuda"}, "'cuda'; wanted one of auto"),
    "impl dtype": ([t.double() for t in LARGE], {"impl": "cpu"}, "'cpu' with torch.float64"),
    "weight": ((LARGE[0], 3), {}, "a int; wanted a tensor"),
    "negative_slope": (LARGE, {"negative_slope": -1.0}, "-1.0; wanted a number >= 0"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_explained_as_the_op_would(what):
    arguments, options, message = MISTAKES[what]
    for function in (linear_leaky_relu, lambda *args, **kwargs: explain(linear_leaky_relu, *args, **kwargs)):
        with pytest.raises(UserError, match=f"^{what.split()[0]}: got {message}"):
            function(*arguments, **options)
