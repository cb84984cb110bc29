"""The one exception that users see: what came, what was wanted, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from reprlib import Repr

_MOST_TEXT = 80  # characters of a value in a message, and of a name that may be a slip of the pen
_MOST_KNOWN = 1000


class _Brief(Repr):
    def repr_int(self, number: int, level: int) -> str:
        """Return its digits, which Python refuses to make of one that has more than 4,300."""
        bits = number.bit_length()
        return f"a number of {bits:,} bits" if bits > 2**12 else super().repr_int(number, level)


class UserError(ValueError):
    """Bad input, told in one line. Commands print it and exit with code 2.

    Args:
        argument: the option, file or parameter at fault, as the user spelled it.
        got: what came.
        wanted: what would have been accepted.
        hint: the next thing to do (optional).
    """

    exit_code = 2

    def __init__(self, argument: str, got: object, wanted: str, hint: str = "") -> None:
        text = f"{argument}: got {got}; wanted {wanted}"
        super().__init__(f"{text}. {hint}" if hint else text)
        self._said = argument, str(got), wanted, hint

    def __reduce__(self) -> tuple:
        return type(self), self._said  # from a worker process, too


def brief(value: object) -> str:
    """Return ``repr(value)`` with little of what is long: text and names may come from anyone."""
    short = _Brief()
    short.maxstring = short.maxother = _MOST_TEXT
    return short.repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'?"`` for the known name closest to ``name``, or ``""``.

    It takes 15 ms at most: long names and all but the first thousand known ones are passed over.
    """
    if len(name) > _MOST_TEXT:
        return ""
    match = get_close_matches(name, list(islice(known, _MOST_KNOWN)), n=1, cutoff=0.5)
    return f"Did you mean '{match[0]}'?" if match else ""
