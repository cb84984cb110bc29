"""Who is measured: fastgan itself, other ways to take the same step, and the limits. One file each."""

from __future__ import annotations

import importlib

from bench.cases import Contender
from bench.protocol import Peer

_FACTORIES = {
    "fastgan": ("bench.peers.native", "Step"),
    "fastgan, a call per step": ("bench.peers.native", "OneStepCalls"),
    "fastgan, load + 100 steps + export": ("bench.peers.native", "LoadAndExport"),
    "fastgan rows, uint8": ("bench.peers.native", "RowsUint8"),
    "fastgan rows, float32": ("bench.peers.native", "RowsFloat32"),
    "FMA peak": ("bench.peers.native", "FmaPeak"),
    "jax": ("bench.peers.jax_scan", "JaxScan"),
    "eager": ("bench.peers.torch_eager", "Eager"),
    "compile": ("bench.peers.torch_compile", "Compiled"),
    "compile whole": ("bench.peers.torch_compile", "CompiledWhole"),
    "reference": ("bench.peers.reference", "Reference"),
    "SGEMM of the step": ("bench.peers.sgemm", "StepProducts"),
    "SGEMM of the generator": ("bench.peers.sgemm", "GeneratorProducts"),
}


def create(contender: Contender) -> Peer:
    """Build a contender here; only its own framework is imported."""
    module, name = _FACTORIES[contender.peer]
    return getattr(importlib.import_module(module), name)(contender.case)
