"""The command line of :class:`~fastgan.config.Config`: one flag per option, built from its declaration."""

from __future__ import annotations

import dataclasses
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import Any

from fastgan.cli import Parser
from fastgan.config import PRESETS, Config, check, flag, preset
from fastgan.data.sources import BUILTIN
from fastgan.errors import UserError

_FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def add_config(parser: Parser) -> None:
    """Add a flag per option, with its range or choices and its default, and ``--preset``."""
    group = parser.add_argument_group("options of the run")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="recipe that the flags given beside it change: "
        + ", ".join(PRESETS)
        + " (default: default, whose values are shown below)",
    )
    for f in _FIELDS.values():
        text = f"{f.metadata['help']} ({_range(f)}default: {_show(f.default)})".replace("%", "%%")
        if f.type == "bool":
            group.add_argument(flag(f.name), action=BooleanOptionalAction, help=text)
        else:
            group.add_argument(flag(f.name), metavar=_METAVAR.get(f.type, "X"), help=text)


_METAVAR = {"int": "N", "str": "NAME", "tuple[int, ...]": "N,N"}


def take_explicit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the command line sets, typed and checked; they are removed from ``arguments``.

    A preset that is named sets every option in which any two presets differ.

    Raises:
        UserError: a value of the wrong kind or out of range, naming the flag.
    """
    out: dict[str, Any] = {}
    if "preset" in arguments:
        recipe = preset(arguments.pop("preset"))
        varying = {name for p in PRESETS for name in preset(p)}
        out = {name: recipe.get(name, f.default) for name, f in _FIELDS.items() if name in varying}
    for name, f in _FIELDS.items():
        if name in arguments:
            value = arguments.pop(name)
            out[name] = check(f, _parse(f.type, value) if isinstance(value, str) else value)
    if "data" in out:
        out["data"] = _absolute(out["data"])
    return out


def refuse_changes(config: Config, explicit: dict[str, Any], source: str) -> None:
    """Refuse options that differ from those of a run, by name.

    Args:
        config: the run's.
        explicit: what is asked for now.
        source: where that was said, for the message.

    Raises:
        UserError: with flag, old and new value of each.
    """
    changed = [
        (name, getattr(config, name), value)
        for name, value in explicit.items()
        if value != getattr(config, name)
    ]
    if changed:
        got = ", ".join(f"{flag(name)} {_show(new)}" for name, _, new in changed)
        wanted = ", ".join(f"{flag(name)} {_show(old)}" for name, old, _ in changed)
        raise UserError(source, got, f"the run's own {wanted}", "A resumed run keeps its options.")


def _absolute(source: str) -> str:
    """Make a path independent of the working directory; a name, or what is not there, stays as it is."""
    path = Path(source).expanduser()
    return source if source in BUILTIN or not path.exists() else str(path.absolute())


def _parse(kind: str, text: str) -> Any:
    """Turn a flag's text into the field's type; what cannot be read stays text, for ``check`` to refuse."""
    if kind == "str":
        return text
    if kind.startswith("tuple"):
        return [_parse("int", part) for part in text.split(",")]
    for read in (int, float) if kind == "int" else (float,):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _range(f: dataclasses.Field) -> str:
    low, high, choices = (f.metadata[k] for k in ("low", "high", "choices"))
    if choices:
        return ", ".join(choices) + "; "
    return "" if low is None else f"{_show(low)} to {_show(high)}; "


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
