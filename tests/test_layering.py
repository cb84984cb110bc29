"""The arrows of the design: imports point down, and `import fastgan` costs nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each unit of the lower half may import of fastgan, besides itself. Everything that is not here belongs
# to the upper half (the run, the commands), which may use all of these.
LOWER = {
    "errors": set(),
    "config": {"errors"},
    "noise": {"errors"},
    "files": {"errors"},
    "threads": {"errors"},
    "lender": set(),
    "kernels": {"errors"},
    "data": {"errors"},
    "spec": {"config"},
    "models": {"noise", "spec"},
    "trained": {"data.schema", "spec"},
    "generator_file": {"errors", "config", "files", "data", "spec", "trained"},
    "sampler": {"errors", "lender", "noise", "trained", "sampler_cpu", "sampler_cuda", "engines", "kernels"}
    | {"threads"},
    "sampler_cpu": {"noise", "trained", "models", "engines.native", "kernels"},
    "sampler_cuda": {"errors", "noise", "trained", "sampler_cpu", "engines", "kernels"},
    "state": {"errors", "models", "spec"},
    "ops": {"errors", "kernels"},
    "graphs": {"errors"},
    "fusion": {"errors", "ops"},
    "layers": {"errors", "ops", "fusion"},
    "engines": {"errors", "config", "noise", "spec", "models", "state", "data.schema", "kernels", "threads"}
    | {"graphs"},
}

# What some of them may import from elsewhere, besides the standard library.
THIRD_PARTY = {
    "errors": set(),
    "config": set(),
    "files": set(),
    "lender": set(),
    "noise": {"numpy"},
    "spec": set(),
    "trained": {"numpy"},
    "generator_file": {"numpy", "safetensors"},
    "sampler": {"numpy"},
    "sampler_cpu": {"numpy", "torch"},
    "sampler_cuda": {"numpy", "torch"},
    "models": {"numpy", "torch"},
    "state": {"torch"},
    "data": {"numpy", "PIL", "pooch", "sklearn"},
    "engines.protocol": {"numpy"},
    "engines.reference": {"numpy", "torch"},
    "kernels.cpu": {"numpy"},
    "kernels.triton": {"torch", "triton"},
    "ops": {"torch"},
    "graphs": {"torch"},
    "fusion": {"torch"},
    "layers": {"torch"},
}


def sources() -> dict[str, Path]:
    """Every module by its name below ``fastgan``; the package itself is ``""``."""
    out = {}
    for folder, package in ((ROOT / "fastgan", ""), (ROOT / "kernels", "kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            out[".".join(p for p in parts if p and p != "__init__")] = path
    return out


SOURCES = sources()
UNITS = {name.split(".")[0] for name in SOURCES} - {""}


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in the file, except for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = node.module.split(".")[0] == "fastgan"
            found |= {n if ours and n.removeprefix("fastgan.") in SOURCES else node.module for n in names}
    return found


def of_fastgan(name: str) -> set[str]:
    """Return the modules of fastgan that a module imports, without the package itself."""
    return {i.removeprefix("fastgan.") for i in imports(SOURCES[name]) if i.startswith("fastgan.")}


def unit(name: str) -> str:
    return name.split(".")[0]


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def is_command(name: str) -> bool:
    return 'if __name__ == "__main__":' in SOURCES[name].read_text(encoding="utf-8")


def test_imports_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from __future__ import annotations\nimport os, torch.nn\nfrom fastgan import noise, __version__\n"
        "if TYPE_CHECKING:\n    import sklearn\n"
        "def f():\n    from fastgan.trainer import Trainer\n    import matplotlib.pyplot as plt\n"
    )
    ours, others = {"fastgan", "fastgan.noise", "fastgan.trainer"}, {"os", "torch.nn", "matplotlib.pyplot"}
    assert imports(path) == ours | others | {"__future__"}


def test_the_map_is_current():
    assert LOWER.keys() - UNITS <= {"kernels"}  # whose Python files may be none
    assert {"train", "sample", "pack", "info", "check"} <= {name for name in SOURCES if is_command(name)}
    assert of_fastgan("engines.reference") >= {"noise", "config", "models", "state", "data.schema"}


@pytest.mark.parametrize("name", [n for n in SOURCES if unit(n) in LOWER])
def test_the_lower_half_imports_what_lies_below(name):
    allowed = LOWER[unit(name)] | {unit(name)}
    for imported in of_fastgan(name):
        assert any(below(imported, a) for a in allowed), f"{name} imports {imported}; it may: {allowed}"


@pytest.mark.parametrize("name", [n for n in SOURCES if any(below(n, p) for p in THIRD_PARTY)])
def test_third_party_imports(name):
    allowed = set.union(*(names for prefix, names in THIRD_PARTY.items() if below(name, prefix)))
    roots = {i.split(".")[0] for i in imports(SOURCES[name])} - {"fastgan"}
    assert roots - sys.stdlib_module_names <= allowed


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_imports_a_command(name):
    assert not {i for i in of_fastgan(name) & SOURCES.keys() if is_command(i)}


def test_the_trainer_knows_the_protocol_only():
    engines = {i for i in of_fastgan("trainer") if below(i, "engines")}
    assert engines <= {"engines", "engines.protocol"}


def test_no_cycles():
    graph = {name: of_fastgan(name) - {name} for name in SOURCES if name}
    # A package stands for its __init__, which may import its own modules.
    for name in graph:
        graph[name] = {i for i in graph[name] if not below(name, i)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# ---- what an import costs


def python(code: str):
    """Run code in a fresh interpreter and return what it prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


HEAVY = ("torch", "sklearn", "scipy", "matplotlib", "triton", "PIL", "pooch", "safetensors", "tqdm")


@pytest.mark.parametrize(
    "module",
    [
        "fastgan",
        "fastgan.config",
        "fastgan.noise",
        "fastgan.data",
        "fastgan.train",
        "fastgan.check",
        "fastgan.kernels.triton",
        "fastgan.sampler",
        "fastgan.virtual",
    ],
)
def test_imports_are_light(module):
    loaded = python(f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(loaded)


def test_importing_fastgan_loads_no_numpy():
    assert "numpy" not in python("import fastgan, json, sys; print(json.dumps(sorted(sys.modules)))")


def test_importing_everything_changes_no_global_state():
    modules = [f"fastgan.{n}" for n in SOURCES if n and unit(n) != "kernels" and n != "engines.cpu"]
    code = f"""
import importlib, json, logging, os, random, signal, warnings
import matplotlib, numpy, torch
def snapshot():
    return dict(
        threads=[torch.get_num_threads(), torch.get_num_interop_threads()],
        torch=[torch.initial_seed(), torch.get_rng_state().tolist(), str(torch.get_default_dtype())],
        flags=[torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()],
        random=[str(random.getstate()), str(numpy.random.get_state()), str(numpy.geterr())],
        backend=matplotlib.get_backend(auto_select=False),
        environment=dict(os.environ), directory=os.getcwd(), logging=logging.root.level,
        signals=[str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        filters=[str(f) for f in warnings.filters],
    )
before = snapshot()
for name in {modules}:
    importlib.import_module(name)
after = snapshot()
print(json.dumps([k for k in before if before[k] != after[k]]))
"""
    assert python(code) == []
