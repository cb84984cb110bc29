"""What callers of the native engine rely on: continuing, threads, stopping, forks, limits, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.cases import CASES, initial, later, setting
from helpers.compare import assert_identical
from helpers.parity import ISAS, native, native_at
from helpers.programs import run_program

from fastgan.engines.protocol import METRICS
from fastgan.errors import UserError

# ---- copies, continuing


@pytest.mark.parametrize("name", CASES)
def test_continuing_is_bit_equal(make_data, name):
    config, data = setting(make_data, CASES[name])
    state = initial(config, data)
    through, by_one, first = (native_at(config, data, state) for _ in range(3))
    metrics = through.run(5)
    np.testing.assert_array_equal(np.concatenate([by_one.run(1) for _ in range(5)]), metrics)
    before = first.run(2)
    second = native_at(config, data, first.export())
    np.testing.assert_array_equal(np.concatenate([before, second.run(3)]), metrics)
    for engine in (by_one, second):
        assert_identical(engine.export().tensors, through.export().tensors)
        assert (engine.export().step, engine.export().seed) == (5, state.seed)


def test_runs_longer_than_a_native_call_are_the_same_run(make_data):
    config, data = setting(make_data, dict(steps=700, g_schedule="cosine", ema=0.99))
    through, parts = (native_at(config, data, initial(config, data)) for _ in range(2))
    metrics = through.run(700)
    assert metrics.shape == (700, len(METRICS))
    np.testing.assert_array_equal(np.concatenate([parts.run(n) for n in (255, 256, 1, 188)]), metrics)
    assert_identical(parts.export().tensors, through.export().tensors)


def test_load_and_export_are_copies_without_loss(make_data):
    config, data = setting(make_data, dict(g_hidden=(17, 33), d_hidden=(16, 31), ema=0.9))
    state = later(config, data)
    untouched = {k: v.clone() for k, v in state.tensors.items()}
    engine = native_at(config, data, state)
    exported = engine.export()
    assert_identical(exported.tensors, untouched)
    engine.run(2)
    assert_identical(state.tensors, untouched)
    assert_identical(exported.tensors, untouched)
    for tensor in (*state.tensors.values(), *exported.tensors.values()):
        tensor.fill_(torch.nan)
    tensors = engine.export().tensors.values()
    assert all(t.isfinite().all() and t.dtype == torch.float32 and not t.requires_grad for t in tensors)
    engine.export().check(engine.spec)


def test_a_float64_state_is_rounded(make_data):
    config, data = setting(make_data, {})
    state = later(config, data)
    single = {k: v.clone() for k, v in state.tensors.items()}
    state.tensors = {k: (v.double() * (1 + 1e-9)).t().contiguous().t() for k, v in state.tensors.items()}
    assert_identical(native_at(config, data, state).export().tensors, single)


def test_without_a_moving_average_it_is_the_generator(make_data):
    config, data = setting(make_data, dict(ema=0.0))
    engine = native_at(config, data, initial(config, data))
    engine.run(3)
    state = engine.export()
    assert_identical(state.part("ema"), state.part("generator"))


def test_a_foreign_state_is_refused(make_data):
    config, data = setting(make_data, {})
    state = initial(*setting(make_data, dict(d_hidden=(6, 4))))
    with pytest.raises(UserError, match=r"discriminator\.layers\.1"):
        native(config, data).load(state)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_data_may_be_read_only_and_is_left_alone(make_data, dtype):
    config, data = setting(make_data, {}, dtype=dtype)
    before = data.rows.copy()
    data.rows.flags.writeable = False
    native_at(config, data, initial(config, data)).run(2)
    np.testing.assert_array_equal(data.rows, before)


def test_the_data_lives_as_long_as_the_engine(make_data):
    config, data = setting(make_data, dict(condition=True))
    expected = native_at(config, data, initial(config, data)).run(5)
    engine = native_at(config, setting(make_data, dict(condition=True))[1], initial(config, data))
    np.testing.assert_array_equal(engine.run(5), expected)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_metrics_have_a_row_a_step(make_data, steps):
    config, data = setting(make_data, {})
    metrics = native_at(config, data, initial(config, data)).run(steps)
    assert metrics.shape == (steps, len(METRICS)) and metrics.dtype == np.float32


# ---- threads: sums run in the order of the rows, whoever adds; so results are bit-equal for any number


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "case",
    [
        dict(batch=1),
        dict(batch=33, g_hidden=(50, 17), d_hidden=(33, 70, 5), condition=True),
        dict(batch=200, d_steps=2, loss="bce", r2=0.0, penalty_every=1, ema=0.0, reuse_fakes=False),
        dict(batch=200, g_hidden=(70, 100), d_hidden=(100, 65), latent=66, penalty_every=2),
    ],
    ids=["one row", "33 rows", "200 rows", "200 wide rows"],
)
def test_any_number_of_threads_gives_the_same_bits(make_data, monkeypatch, case, isa):
    monkeypatch.setenv("FASTGAN_ISA", isa)
    config, data = setting(make_data, case, features=41)
    engines = [native_at(config, data, initial(config, data), n) for n in (1, 2, 3, 5)]
    metrics = [engine.run(6) for engine in engines]
    for engine, rows in zip(engines[1:], metrics[1:], strict=True):
        np.testing.assert_array_equal(rows, metrics[0])
        assert_identical(engine.export().tensors, engines[0].export().tensors)


# ---- refusals


def test_an_unknown_instruction_set_is_an_error_that_names_the_known_ones():
    done = run_program(
        "import sys; from fastgan import train; sys.exit(train.main(['--fused', '--steps', '1']))",
        FASTGAN_ISA="avx1024",
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("fastgan: error: FASTGAN_ISA: got 'avx1024'; wanted one of ")
    assert all(isa in done.stderr for isa in ISAS) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["discriminator.layers.0.weight", "generator.layers.0.weight"])
def test_a_hidden_unit_that_is_not_a_number_shows_in_the_losses(make_data, monkeypatch, isa, name):
    """The trainer looks at the losses alone: no activation may turn NaN into a number."""
    monkeypatch.setenv("FASTGAN_ISA", isa)
    config, data = setting(make_data, dict(g_hidden=(24,), d_hidden=(24, 18), r1=0.0, r2=0.0))
    state = initial(config, data)
    state.tensors[name].view(-1)[0] = math.nan
    metrics = native_at(config, data, state).run(2)
    losses = metrics[:, [METRICS.index("d_loss"), METRICS.index("g_loss")]]
    assert np.isnan(losses).all()


@pytest.mark.parametrize("isa", ["", *ISAS])
def test_the_instruction_set_can_be_chosen(isa):
    code = "from fastgan.kernels.cpu import native; print(native().isa())"
    assert run_program(code, FASTGAN_ISA=isa).stdout == (isa or ISAS[0]) + "\n"


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "fastgan.kernels.cpu._native":
            raise ImportError("libnative.so: cannot open shared object file")
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    "command",
    [
        "train.main(['--fused', '--steps', '1', '--out', '/nonexistent/runs'])",
        "train.main(['--fused', '--dry-run'])",
        "check.main([])",
    ],
)
def test_without_the_native_module_fused_says_why_and_what_to_do(command):
    done = run_program(BLOCKED + f"from fastgan import check, train; sys.exit({command})")
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert "no module (libnative.so: cannot open shared object file)" in done.stderr
    assert "pip install -e . -c constraints.txt" in done.stderr


def test_without_the_native_module_the_rest_works():
    done = run_program(
        BLOCKED
        + "import numpy as np\nfrom fastgan import engines, info\nfrom fastgan.config import Config\n"
        + "from fastgan.data.schema import Data, Schema\n"
        + "data = Data(np.zeros((4, 6), np.uint8), None, Schema('array', (6,), 'uint8'), 'zeros', 'zeros')\n"
        + "print(engines.create(Config(), data).name)\nsys.exit(info.main([]))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reference\n")
    assert "cpu           no: " in done.stdout and "libnative.so" in done.stdout


def test_losses_stay_finite_at_extreme_logits(make_data):
    config, data = setting(make_data, dict(loss="bce", r1=0.0, r2=0.0))
    for logit in (-1e4, 1e4):
        state = initial(config, data)
        state.tensors["discriminator.layers.2.bias"].fill_(logit)
        metrics = native_at(config, data, state).run(2)
        assert metrics[0, 0] == pytest.approx(abs(logit), rel=1e-5)
        assert np.isfinite(metrics[:, :2]).all() and math.isnan(metrics[0, 2])
