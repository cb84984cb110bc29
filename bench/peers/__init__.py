"""Who is measured: fastgan itself, other ways to do the same work, and the limits. A module per framework."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import weakref
from pathlib import Path

from bench.plan import Contender
from bench.protocol import Peer


def create(contender: Contender) -> Peer:
    """Build a contender here; only its own framework is imported."""
    module, name = contender.peer.split(".")
    return getattr(importlib.import_module(f"bench.peers.{module}"), name)(contender.case)


def folder(peer: object) -> Path:
    """Return a new temporary folder, which goes when the contender does or Python ends."""
    path = tempfile.mkdtemp()
    weakref.finalize(peer, shutil.rmtree, path, ignore_errors=True)
    return Path(path)
