"""What all forms of virtual data take: a generator, by file or in memory, rows, a seed, a label."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from fastgan import generator_file
from fastgan.errors import UserError, brief, nearest
from fastgan.trained import TrainedGenerator

MOST_ROWS = 2**62
_EXTRAS = {"pyarrow": "virtual"}


def generator_of(file: TrainedGenerator | Path | str) -> tuple[TrainedGenerator, str]:
    """Return the generator and its name for messages; a file is read once and may change or go afterwards."""
    if isinstance(file, TrainedGenerator):
        return file, file.provenance.data
    if not isinstance(file, (str, Path)):
        raise UserError("file", repr(file), "the path of a generator file, or a TrainedGenerator")
    return generator_file.load(file), Path(file).name


def label_of(generator: TrainedGenerator, where: Mapping[str, Any] | None) -> int | None:
    """Return the number of the class that ``where={"label": 3}`` names, by its name as text.

    Raises:
        UserError: another condition, an unknown class, or a generator without labels.
    """
    return None if where is None else class_of(generator, str(condition(where)["label"]), "where")


def condition(where: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``where={"label": 3}`` as JSON can have it.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(where, Mapping) or set(where) != {"label"}:
        raise UserError("where", brief(where), 'a condition on the label, such as {"label": 3}')
    label = where["label"]
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        label = brief(label)  # no class, and perhaps more digits than Python makes text of
    return {"label": label if isinstance(label, (int, str)) else str(label)}


def chosen(
    columns: Iterable[str],
    known: Collection[str],
    fewest: int = 1,
    *,
    once: bool = False,
    argument: str = "columns",
) -> list[str]:
    """Return the names of ``columns``, ``fewest`` or more, which ``argument`` asks for.

    Raises:
        UserError: they are no list of names, one is not among the ``known``, or stands twice where it may
            stand ``once``.
    """
    try:
        names = None if isinstance(columns, str) else list(columns)
    except TypeError:
        names = None
    if names is None or len(names) < fewest:
        hint = f"Write [{brief(columns)}]." if isinstance(columns, str) else ""
        raise UserError(argument, brief(columns), "a list of at least one name", hint)
    for name in names:
        if not isinstance(name, str) or name not in known:
            hint = nearest(name, known) if isinstance(name, str) else ""
            raise UserError(argument, brief(name), f"one of {_some(known)}", hint)
    if once and len(set(names)) < len(names):
        raise UserError(argument, brief(names), "each name once")
    return [str(name) for name in names]  # NumPy's strings, too


def numbers_of(classes: Sequence[str]) -> list[int] | None:
    """Return the int64 that each class is called; None if not all are, such as ``01`` beside ``1``."""
    numbers = []
    for name in classes:
        digits = name.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            return None
        numbers.append(int(name))
        if str(numbers[-1]) != name or not -(2**63) <= numbers[-1] < 2**63:
            return None
    return numbers


def class_of(generator: TrainedGenerator, name: str, argument: str) -> int:
    """Return the number of the class ``name``, which ``argument`` asks for.

    Raises:
        UserError: an unknown class, or a generator without labels.
    """
    got, classes = f"label {brief(name)}", generator.schema.classes
    if not generator.spec.classes:
        hint = "Train it with --condition on labelled data."
        raise UserError(argument, got, "nothing, since this generator was trained without labels", hint)
    if name not in classes:
        raise UserError(argument, got, f"a label of {_some(classes)}", nearest(name, classes))
    return classes.index(name)


def _some(names: Collection[str]) -> str:
    return ", ".join(islice(names, 19)) + (", ..." if len(names) > 19 else "")


def need(package: str) -> ModuleType:
    """Import a package that fastgan itself does not need.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        name = package.partition(".")[0]
        extra = _EXTRAS.get(name)
        wanted = f"what the extra '{extra}' brings" if extra else "an installed one"
        hint = (
            f'pip install "fastgan[{extra}]"; in a checkout pip install -e ".[{extra}]"'
            if extra
            else f"pip install {name}"
        )
        raise UserError(name, "no such package", wanted, hint) from error
