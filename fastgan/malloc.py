"""Options of glibc's malloc, of a whole process; with another C library they do nothing."""

from __future__ import annotations

import contextlib
import ctypes

# As malloc.h numbers them.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def set_option(option: int, value: int) -> None:
    """Set an option, as ``man mallopt`` has it."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(option, value)
