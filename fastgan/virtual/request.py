"""What a client asks of a server for: a Flight ticket or command, JSON that anyone can write by hand.

``{"table": "digits", "rows": 1000}`` and, as wanted, ``"first"``, ``"seed"``, ``"columns"``, ``"where"`` and
``"generator"``, the digest of the file that the rows must come from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fastgan.data.reading import parse_json, shown
from fastgan.errors import UserError
from fastgan.sampler import whole
from fastgan.virtual.source import MOST_ROWS

_MOST_BYTES = 2**20
_WANTED = 'JSON such as {"table": "digits", "rows": 1000}'


@dataclass(frozen=True)
class Request:
    """Some rows of a table.

    Attributes:
        table: its name.
        rows: how many; None for as many as the server offers from ``first`` on.
        first: number of the first.
        seed: of them; None for the generator's own.
        columns: which, in their order; None for all.
        where: as for :class:`~fastgan.virtual.table.VirtualTable`.
        generator: digest of the generator file; None for whichever the server has.
    """

    table: str
    rows: int | None = None
    first: int = 0
    seed: int | None = None
    columns: list[str] | None = None
    where: dict[str, Any] | None = None
    generator: str | None = None

    def __post_init__(self) -> None:
        for name in ("table", "generator"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name == "table" or value is not None):
                raise UserError(name, _brief(value), "text")
        for name, high in (("rows", MOST_ROWS), ("first", MOST_ROWS), ("seed", 2**63 - 1)):
            if name == "first" or getattr(self, name) is not None:
                _whole(name, getattr(self, name), high)
        columns = self.columns
        if columns is not None and not (
            isinstance(columns, list) and all(isinstance(name, str) for name in columns)
        ):
            raise UserError("columns", _brief(columns), "a list of names")
        if self.where is not None and not isinstance(self.where, dict):
            raise UserError("where", _brief(self.where), 'a condition such as {"label": 3}')

    @classmethod
    def read(cls, content: bytes) -> Request:
        """Read a ticket or command.

        Raises:
            UserError: it is none.
        """
        if len(content) > _MOST_BYTES:
            raise UserError("request", f"{len(content):,} bytes", f"at most {_MOST_BYTES:,}")
        try:
            fields = parse_json(content)
        except ValueError as error:
            raise UserError("request", f"no JSON ({shown(str(error))[:200]})", _WANTED) from None
        if not isinstance(fields, dict) or "table" not in fields:
            raise UserError("request", _brief(fields), _WANTED)
        for name in fields.keys() - cls.__dataclass_fields__.keys():
            raise UserError("request", _brief(name), "one of " + ", ".join(cls.__dataclass_fields__))
        return cls(**fields)

    def given(self) -> dict[str, Any]:
        """Return what is asked for, without what is left to the server."""
        return {k: v for k, v in vars(self).items() if v is not None}

    def content(self) -> bytes:
        """Return the ticket."""
        return json.dumps(self.given()).encode()


def _whole(name: str, value: Any, high: int) -> None:
    if not isinstance(value, int):
        raise UserError(name, _brief(value), f"a whole number from 0 to {high}")
    whole(name, value, 0, high)


def _brief(value: Any) -> str:
    return shown(ascii(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__)[:80]
