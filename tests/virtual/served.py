"""A server as a process of its own, as a user starts it: a forked one would hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.flight as flight
from helpers.generators import generator_of, spec_of

from fastgan.virtual import VirtualTable

NUMBERS = generator_of(spec_of(16, 3, head="linear"), dtype="float32")
HERE = VirtualTable(NUMBERS, 2**40)
TOKEN, OTHER = "a-token-of-some-length", "the-token-of-another"


class Process:
    """``python -m fastgan.serve`` with ``arguments`` on a free port."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / "access.log"
        command = [sys.executable, "-m", "fastgan.serve", "--port", "0", "--log", str(self.log), *arguments]
        clean = {k: v for k, v in os.environ.items() if k != "FASTGAN_TOKEN"}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.child = subprocess.Popen(command, env=clean | environment, **pipes)
        self.first_line = self.child.stdout.readline()
        assert self.first_line, self.child.stderr.read()
        self.uri = self.first_line.split()[0]

    def health(self, **options) -> dict:
        with flight.connect(self.uri, **options) as client:
            (result,) = client.do_action("health", calls(options.pop("token", None)))
            return json.loads(result.body.to_pybytes())

    def lines(self) -> list[dict]:
        """Return the access log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def memory(self, key: str = "VmRSS") -> float:
        """Return resident memory in MB."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(text.split(key + ":")[1].split()[0]) / 1024

    def stop(self, number: int = signal.SIGTERM, wait: float = 20) -> tuple[int, str, str]:
        """Send a signal; return exit code and what is left of the output."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            out, err = self.child.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
            raise
        return self.child.returncode, out, err

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.communicate()


def calls(token: str | None = None, timeout: float = 20) -> flight.FlightCallOptions:
    """Return options of a call."""
    headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
    return flight.FlightCallOptions(timeout=timeout, headers=headers)


def until(true, seconds: float = 20) -> None:
    """Wait until ``true()``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
