"""fastgan: the fastest way to train an MLP GAN and to serve the data it has learned.

``fastgan.fuse``, ``fastgan.unfuse``, ``fastgan.layers`` and ``fastgan.ops`` are for any PyTorch model. They,
and with them PyTorch, are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan import layers, ops
    from fastgan.fusion import fuse, unfuse

try:
    __version__ = version("fastgan")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "fuse", "layers", "ops", "unfuse"]


def __getattr__(name: str) -> Any:
    if name in ("layers", "ops"):
        return import_module(f"fastgan.{name}")
    if name in ("fuse", "unfuse"):
        return getattr(import_module("fastgan.fusion"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
