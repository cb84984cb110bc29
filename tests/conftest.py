"""Fixtures that every test may use."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from helpers import cases, interpreter
from hypothesis import settings

# Shared CI machines stall at times: a slow example is no failure, and the same examples every time are
# worth more there than new ones.
settings.register_profile("fastgan", deadline=None, derandomize=True, database=None)
settings.load_profile("fastgan")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run tests marked ``interpreted`` where Triton's kernels are interpreted: see helpers/interpreter.py."""
    if pyfuncitem.get_closest_marker("interpreted") is None:
        return None
    pytest.importorskip("triton", reason="no Triton")
    if interpreter.HERE:
        importlib.import_module("helpers.interpreter_mends")
        return None
    module, function = pyfuncitem.function.__module__, pyfuncitem.originalname
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    wanted = (
        "pytest.MonkeyPatch.context(), since nobody undoes the fixture's changes in the interpreting process"
    )
    assert "monkeypatch" not in arguments, f"{function} takes monkeypatch; wanted {wanted}"
    interpreter.run_interpreted(module, function, arguments)
    return True


MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(scope="session")
def mnist_path() -> Path:
    """Folder with 10,000 real MNIST images and their labels, as gzipped IDX."""
    if not MNIST.is_dir():
        pytest.skip(f"no MNIST images at {MNIST}")
    return MNIST


@pytest.fixture
def ran(monkeypatch) -> list[float]:
    """The slopes of the fused op's calls by fused models, in order."""
    from fastgan.fusion import call

    slopes: list[float] = []
    op = call.linear_leaky_relu
    monkeypatch.setattr(call, "linear_leaky_relu", lambda *args: slopes.append(args[3]) or op(*args))
    return slopes


@pytest.fixture(scope="session")
def make_data():
    """Return a builder of small data sets: random rows, each different, the same every time."""
    return cases.make_data
