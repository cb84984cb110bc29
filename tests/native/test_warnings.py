"""The native core compiles without warnings, by every compiler there is, for all its instruction sets."""

from __future__ import annotations

import shutil

import pytest
from helpers.core import ARM, FLAGS, ISAS, run_all, units


@pytest.mark.parametrize(
    ("cxx", "isas"), [("g++", ISAS), ("clang++", ISAS), ("aarch64-linux-gnu-g++", ARM)], ids=lambda x: str(x)
)
def test_there_are_no_warnings(cxx, isas, tmp_path):
    if not shutil.which(cxx):
        pytest.skip(f"no {cxx} here")
    sources = units(isas)
    run_all([[cxx, *FLAGS, "-c", *s, "-o", str(tmp_path / f"{name}.o")] for name, s in sources.items()])
