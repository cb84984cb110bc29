"""What all commands share: a parser with one-line errors, and the way out."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from fastgan.errors import UserError, nearest

EXIT_CODES = """exit codes:
  0    done
  1    a bug in fastgan
  2    bad input, or a file that could not be read or written
  3    training stopped: a loss or a parameter is not finite
  130  stopped by SIGINT (Ctrl-C), the state is saved
  143  stopped by SIGTERM, the state is saved"""

FILE_CODES = "exit codes: 0 done, 2 bad input or a file that could not be read or written"


class Parser(argparse.ArgumentParser):
    """Like its base, but without abbreviations, and errors are :class:`UserError`.

    Only what was given on the command line is in the result of :meth:`parse`.
    """

    def __init__(self, module: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=_Formatter,
        )

    def parse(self, argv: Sequence[str] | None) -> dict[str, Any]:
        """Return the given arguments by name.

        Raises:
            UserError: an unknown argument (with the nearest known one), or one without its value.
        """
        known, unknown = self.parse_known_args(argv)
        if unknown:
            name = unknown[0].partition("=")[0]
            flags = [f for action in self._actions for f in action.option_strings]
            raise UserError(name, "an unknown argument", "one that --help shows", nearest(name, flags))
        return vars(known)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a :class:`UserError`."""
        for pattern, wanted in _ERRORS.items():
            if match := re.fullmatch(pattern, message):
                raise UserError(
                    match["name"].split("/")[0], match.groupdict().get("got") or "nothing", wanted
                )
        raise UserError("arguments", message, "what --help shows")


# What argparse can find in parsers whose arguments are all text or switches.
_ERRORS = {
    r"the following arguments are required: (?P<name>.*)": "a value; --help shows more",
    r"argument (?P<name>\S+): expected one argument": "a value; --help shows more",
    r"argument (?P<name>\S+): ignored explicit argument (?P<got>.*)": "no value: it is a switch",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def whole_number(name: str, text: str, low: int, high: int) -> int:
    """Return ``text`` as a whole number in ``low..high``; :class:`UserError` naming ``name`` if it is not."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UserError(name, f"'{text}'", f"a whole number from {low} to {high}")
    return value


def add_rows(parser: Parser, source: str) -> None:
    """Add ``--first``, ``--seed`` and ``--label``: which rows of ``source``, a run or a file."""
    parser.add_argument("--first", metavar="N", help="number of the first row (0 to 2**62; default: 0)")
    text = f"of the rows (0 to 2**63 - 1; default: the {source}'s)"
    parser.add_argument("--seed", metavar="N", help=text)
    text = "class of all rows, trained with --condition (default: drawn as in the data)"
    parser.add_argument("--label", metavar="NAME", help=text)


def add_device(parser: Parser) -> None:
    """Add ``--device``: what computes rows."""
    text = "that computes rows: cpu, cuda, cuda:1 and so on (default: cpu)"
    parser.add_argument("--device", metavar="NAME", help=text)


def add_step(parser: Parser) -> None:
    """Add ``--step``, which :func:`step_of` reads."""
    parser.add_argument("--step", metavar="N", help="checkpoint to use (default: the newest)")


def step_of(arguments: dict[str, Any]) -> int | None:
    """Return the value of ``--step``, which names a checkpoint, or None for the newest."""
    return whole_number("--step", arguments["step"], 0, 2**40) if "step" in arguments else None


def one_of(name: str, text: str, choices: Sequence[str]) -> str:
    """Return ``text`` if it is one of ``choices``, or raise a :class:`UserError` with the nearest one."""
    if text not in choices:
        raise UserError(name, f"'{text}'", "one of " + ", ".join(choices), nearest(text, choices))
    return text


def run_command(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Run a command and return its exit code; a :class:`UserError` becomes one line on stderr and code 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: its number is taken, so that no other file gets it
            setattr(sys, name, _nowhere())
    try:
        code = command(argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        print("fastgan: error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fastgan: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        discard_output()  # the reader (`head`) has gone
        return 141


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def discard_output() -> None:
    """Let what is still printed go nowhere: Python flushes stdout once more at exit, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
