"""Copies of a kernel module with one mistake planted in the source, for checks of the checks."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType


def mutant(module: ModuleType, old: str, new: str, count: int = 1) -> ModuleType:
    """Return a copy of a module in which ``old``, there exactly ``count`` times, is replaced by ``new``."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == count, f"{module.__name__} has {old!r} {source.count(old)} times, not {count}"
    # Triton reads the source of its kernels from the file, later: it has to stay.
    path = Path(tempfile.mkdtemp(prefix="mutant-")) / f"{module.__name__.rsplit('.', 1)[-1]}.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"mutant_of_{path.stem}", path)
    changed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(changed)
    return changed


def mutant_of_part(module: ModuleType, part: ModuleType, old: str, new: str, count: int = 1) -> ModuleType:
    """Return a copy of a module that has what it imports from ``part`` from a mutant of that one."""
    changed = mutant(module, "from __future__", "from __future__")
    names = vars(mutant(part, old, new, count)).items()
    vars(changed).update({k: v for k, v in names if k in vars(changed) and not k.startswith("__")})
    return changed
