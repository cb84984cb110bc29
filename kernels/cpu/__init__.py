"""The native CPU kernels, or the reason why there are none."""

from __future__ import annotations

import os
from types import ModuleType

from fastgan.errors import UserError


def native() -> ModuleType:
    """Return the native module.

    Raises:
        UserError: it was not built, cannot be loaded, or FASTGAN_ISA asks for what this processor lacks.
    """
    try:
        from fastgan.kernels.cpu import _native
    except ImportError as error:
        raise UserError(
            "the native CPU engine",
            f"no module ({error})",
            "the extension that `pip install` builds",
            "Install again with a C++ compiler (GCC 12+ or Clang 14+): pip install -e . -c constraints.txt",
        ) from None
    try:
        _native.isa()
    except ValueError as error:
        raise UserError(
            "FASTGAN_ISA",
            f"'{os.environ.get('FASTGAN_ISA')}'",
            "one of "
            + ", ".join(_native.isas())
            + (f" (not {_native.refused()})" if _native.refused() else ""),
            "Unset it for the best one.",
        ) from error
    return _native


def describe() -> str:
    """Return one line on the native module: instruction set in use and the others that would run here."""
    module = native()
    others = [isa for isa in module.isas() if isa != module.isa()]
    notes = [f"also: {', '.join(others)}"] * bool(others) + [f"not {module.refused()}"] * bool(
        module.refused()
    )
    return f"native C++, {module.isa()}" + (f" ({'; '.join(notes)})" if notes else "")
