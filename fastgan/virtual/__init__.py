"""A trained generator as a data source: rows computed when they are read, the same ones every time.

``VirtualDataset`` and ``VirtualIterable`` are for PyTorch; ``VirtualTable`` is for everything that reads
Arrow, ``connect`` gives one whose rows a server computes; both need the extra ``virtual``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "VirtualDataset": "dataset",
    "VirtualIterable": "dataset",
    "VirtualTable": "table",
    "connect": "remote",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for, and with it PyTorch or pyarrow, at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
