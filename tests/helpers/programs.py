"""Python programs in processes of their own: what kills, forks or runs out must not do it in the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# A small GAN on the native engine, with two threads; to be put before a program.
GAN = """
import os, signal, sys, threading, time
import numpy as np, torch
from fastgan.config import Config
from fastgan.data.schema import Data, Schema
from fastgan.engines.cpu import CpuEngine
from fastgan.spec import ModelSpec
from fastgan.state import State
rows = np.arange(40 * 9, dtype=np.uint8).reshape(40, 9)
data = Data(rows, None, Schema("array", (9,), "uint8"), "rows", "rows")
def engine_at(steps=0, threads=2, **options):
    config = Config(**dict(latent=5, g_hidden=(24,), d_hidden=(24, 18), batch=40, threads=threads) | options)
    engine = CpuEngine(config, data)
    engine.load(State.initial(ModelSpec.of(config, 9, 0), 3))
    engine.run(steps)
    return engine
def same(one, other):
    one, other = one.export(), other.export()
    return one.step == other.step and all(torch.equal(v, other.tensors[k]) for k, v in one.tensors.items())
"""


def run_program(code: str, seconds: float = 60, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code to its end."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | environment,
        cwd=TESTS.parent,
    )
