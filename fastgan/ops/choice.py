"""Which implementation of an op runs, and why."""

from __future__ import annotations

from fastgan.errors import UserError, nearest

IMPLS = ("auto", "reference", "cpu", "triton")


def check_impl(impl: str) -> None:
    """Raise a UserError for an unknown implementation, or one that cannot run."""
    if impl not in IMPLS:
        raise UserError("impl", repr(impl), "one of " + ", ".join(IMPLS), nearest(str(impl), IMPLS))
    if impl in ("cpu", "triton"):
        raise UserError("impl", repr(impl), "auto or reference: this version has no such kernel yet")
