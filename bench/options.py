"""How long to measure, on what: the options that all commands share."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from fastgan.errors import UserError

DEVICES = ("cpu", "cuda")
LARGEST = 4096  # batch
# Many short rounds: the two times of a ratio lie close together, and its median is known well.
FULL, QUICK = dict(rounds=15, seconds=0.045), dict(rounds=9, seconds=0.045)


@dataclass(frozen=True)
class Options:
    """How long to measure, on what.

    Attributes:
        quick: fewer sizes, fewer and shorter rounds: under three minutes for all suites.
        rounds: of each group.
        seconds: of one measurement; a group may want another.
        threads: of every contender.
        device: ``cpu`` or ``cuda``.
        batches: of steps; None for a suite's own.
    """

    quick: bool = False
    rounds: int = FULL["rounds"]
    seconds: float = FULL["seconds"]
    threads: int = 2
    device: str = "cpu"
    batches: tuple[int, ...] | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Options:
        """Return what parsed arguments mean; those not given depend on the machine and on ``--quick``.

        Raises:
            UserError: this machine has no such device, or fewer cores than threads.
        """
        from bench import machine

        cores = len(machine.cores())
        if (arguments.threads or 1) > cores:
            hint = "More threads than cores measure the system's scheduler."
            raise UserError("--threads", arguments.threads, f"1 to {cores}, the cores that there are", hint)
        if arguments.device == "cuda" and machine.device() != "cuda":
            raise UserError("--device", "cuda", "a GPU that PyTorch can use", "Leave it out for the CPU.")
        defaults = QUICK if arguments.quick else FULL
        return cls(
            arguments.quick,
            arguments.rounds or defaults["rounds"],
            arguments.seconds or defaults["seconds"],
            arguments.threads or cores,
            arguments.device or machine.device(),
            arguments.batches,
        )


def add(parser: argparse.ArgumentParser | object) -> None:
    """Add the options to a parser, or to a group of pytest's."""
    option = getattr(parser, "addoption", None) or parser.add_argument
    option("--quick", action="store_true", help="fewer sizes, 9 shorter rounds: under 3 minutes")
    option("--rounds", type=count, help="rounds of each group (15; quick: 9)")
    option("--seconds", type=duration, help="of one measurement (0.045)")
    option("--threads", type=count, help="of every contender (one for each core)")
    option("--device", choices=DEVICES, help="where to measure (cuda where there is one)")
    option("--batches", type=counts, help="of steps, such as 32,128 (1 to 4096; quick: 32,128)")


def count(text: str) -> int:
    """Return a positive whole number, such as 10_000.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"[0-9]+(_[0-9]+)*", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; wanted a positive whole number")
    return int(text)


def pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"got {text}; wanted a regular expression: {error}") from None


def counts(text: str) -> tuple[int, ...]:
    """Return batch sizes, separated by commas.

    Raises:
        argparse.ArgumentTypeError: one is none, or beyond what the suites are made for.
    """
    found = tuple(count(word) for word in text.split(","))
    if max(found) > LARGEST:
        raise argparse.ArgumentTypeError(f"got {max(found)}; wanted batches of at most {LARGEST} rows")
    return found


def duration(text: str) -> float:
    """Return a positive number of seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"got {text}; wanted a positive number of seconds")
    return seconds
