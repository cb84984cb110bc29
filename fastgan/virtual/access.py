"""Who may ask a server for rows, and for how many: tokens, rates, streams, and a line in the log for each."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastgan.errors import UserError

VARIABLE = "FASTGAN_TOKEN"
_SHORTEST = 16
_MOST_LOGGED = 300  # characters of a value
_STEP = 0.1  # seconds, after which one who waits looks whether anybody still wants the rows
_SENDABLE = re.compile(r"[!-~]+")


class Tokens:
    """Bearer tokens and whose they are. Only their digests are kept.

    Args:
        tokens: names of clients by token.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._clients = [(_digest(token), name) for token, name in tokens.items()]

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str]) -> Tokens | None:
        """Return the tokens of a file, ``name token`` in each line, or else that of the environment, or None.

        Raises:
            UserError: the file cannot be read or holds something else, or a token is too short.
        """
        if path is None:
            token = environment.get(VARIABLE)
            return None if token is None else cls({_checked(token, VARIABLE): "client"})
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(f"--tokens {path}", reason.lower(), "a file of tokens") from None
        tokens: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or line.startswith("#"):
                continue
            where = f"--tokens {path}: line {number}"
            if len(words) != 2 or not words[0].isprintable():
                raise UserError(where, f"{len(words)} words", "a client's name and its token")
            tokens[_checked(words[1], where)] = words[0]
        if not tokens:
            raise UserError(f"--tokens {path}", "no tokens", "a client's name and its token in each line")
        return cls(tokens)

    def client(self, authorization: str) -> str | None:
        """Return whose token ``Bearer ...`` has, or None, in a time that tells nothing."""
        kind, _, token = authorization.partition(" ")
        given, found = _digest(token.strip()), None
        for digest, name in self._clients:  # all of them, for the same time
            if hmac.compare_digest(digest, given):
                found = name
        return found if kind.lower() == "bearer" else None


@dataclass(frozen=True)
class Limits:
    """What each client may ask for.

    Attributes:
        rows: of one request.
        rate: rows a second, of all streams of a client; None for no limit. A stream that is too fast waits,
            with batches of a second's rows at most.
        streams: at a time, of one client.
        total: streams at a time, of all.
    """

    rows: int = 2**62
    rate: float | None = None
    streams: int = 16
    total: int = 64


class Busy(Exception):
    """There are as many streams as may be."""


@dataclass
class _Client:
    streams: int = 0
    next_free: float = 0.0  # when the rows that were sent so far are paid for


@dataclass
class Traffic:
    """Counts streams and rows of each client, and holds back those that are too fast.

    Attributes:
        limits: of each client.
        closing: is set when the server shuts down; who waits goes on at once then.
    """

    limits: Limits
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        # A stream leaves when it is freed, which the collector of cycles may do in a thread that holds this.
        self._lock = threading.RLock()

    @property
    def streams(self) -> int:
        """Number of live streams."""
        with self._lock:
            return sum(client.streams for client in self._clients.values())

    def enter(self, name: str) -> None:
        """Count a new stream.

        Raises:
            Busy: there are too many.
        """
        with self._lock:
            now = time.monotonic()
            idle = [k for k, c in self._clients.items() if not c.streams and c.next_free < now]
            for key in idle:  # so that this does not grow with the number of addresses ever seen
                del self._clients[key]
            client = self._clients.setdefault(name, _Client())
            total = sum(c.streams for c in self._clients.values())
            if client.streams >= self.limits.streams or total >= self.limits.total:
                mine = client.streams >= self.limits.streams
                most = self.limits.streams if mine else self.limits.total
                raise Busy(f"{most} streams{' of this client' if mine else ''} are open; read or close one")
            client.streams += 1

    def leave(self, name: str) -> None:
        """Count a stream as ended."""
        with self._lock:
            self._clients[name].streams -= 1

    def pay(self, name: str, rows: int, is_gone: Callable[[], bool]) -> bool:
        """Wait until ``rows`` more are within the client's rate; return whether anybody wants them then.

        A client that leaves is not charged for them, and a server that shuts down waits no longer.
        """
        if self.limits.rate is None:
            return not self.closing.is_set()
        cost = rows / self.limits.rate
        with self._lock:
            client = self._clients[name]
            start = max(client.next_free, time.monotonic())
            client.next_free = start + cost
        while not (is_over := self.closing.is_set() or is_gone()) and (left := start - time.monotonic()) > 0:
            self.closing.wait(min(left, _STEP))
        if is_over:
            with self._lock:
                client.next_free -= cost
        return not is_over


class Log:
    """A line of JSON for each call, without tokens, which never come near it.

    Of a value that would be longer, the line has the first 300 characters: a request may have a megabyte.

    Rows are served even where a line cannot be written, on a full disk or to a reader that has gone: the next
    line that can be written says how many were ``lost`` before it.

    Args:
        stream: unbuffered, so that a line is there when its call is over, or else is known to be lost; None
            for no log.

    Attributes:
        lost: number of lines since the last one that was written.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream, self.lost = stream, 0
        self._lock = threading.RLock()  # as in Traffic: a stream that is freed writes its line

    def write(self, **values: Any) -> None:
        """Write a line."""
        if self._stream is None:
            return
        values = {k: _cut(v) for k, v in values.items()}
        values = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | values
        with self._lock:
            if self.lost:
                values["lost"] = self.lost
            text = json.dumps(values) + "\n"
            # The first of the lost ones may be there by half.
            rest = (("\n" if self.lost else "") + text).encode()
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
                self.lost = 0
            except OSError:
                self.lost += 1

    @contextmanager
    def call(self, **values: Any) -> Iterator[dict[str, Any]]:
        """Write a line at the end of the block, with what was added to its values and how it ended."""
        begin = time.perf_counter()
        try:
            yield values
        except BaseException as error:
            values.setdefault("outcome", type(error).__name__)
            raise
        finally:
            values.setdefault("outcome", "ok")
            self.write(**values, seconds=round(time.perf_counter() - begin, 6))


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return value if len(text) <= _MOST_LOGGED else text[:_MOST_LOGGED]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def check_token(token: str, argument: str) -> None:
    """Refuse what no header can carry, such as the line end of the file that a token was read from.

    Raises:
        UserError: naming ``argument``, without the token.
    """
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise UserError(argument, "other characters", "a token of printable ASCII without spaces")


def _checked(token: str, where: str) -> str:
    check_token(token, where)
    if len(token) < _SHORTEST:
        hint = "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        raise UserError(where, f"a token of {len(token)} characters", f"at least {_SHORTEST}", hint)
    return token
