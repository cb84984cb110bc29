"""A table of a server as a :class:`VirtualTable` here: ``connect``."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import numpy as np

from fastgan.errors import UserError
from fastgan.sampler import whole
from fastgan.virtual.access import check_token
from fastgan.virtual.pushdown import ComputedDataset
from fastgan.virtual.request import Request
from fastgan.virtual.source import chosen, condition, need
from fastgan.virtual.table import VirtualTable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.flight as flight
else:
    pa, flight = need("pyarrow"), need("pyarrow.flight")

_PATIENCE = 30.0  # seconds for an answer without rows


def connect(
    uri: str,
    token: str | None = None,
    *,
    table: str | None = None,
    rows: int | None = None,
    seed: int | None = None,
    where: Mapping[str, Any] | None = None,
    columns: Iterable[str] | None = None,
    tls_roots: Path | str | None = None,
    allow_insecure: bool = False,
) -> VirtualTable:
    """Return a table of a server (``python -m fastgan.serve``) as a :class:`VirtualTable`.

    What is read of it is asked for then, and only that: columns and ranges of rows are chosen by the server.
    It holds to the generator that it found: should the server have another one later, reading says so.

    Args:
        uri: ``grpc+tls://host:port``, or ``grpc://`` without encryption.
        token: of this client; give it from a file or the environment, not in the source.
        table: its name; None where the server has one only.
        rows: how many; None for all that the server offers.
        seed: of the rows; None for the generator's own.
        where: ``{"label": 3}``, as for :class:`VirtualTable`.
        columns: which; None for all.
        tls_roots: file of PEM certificates to trust instead of the system's, for a certificate of your own.
        allow_insecure: whether a token may go to another machine without encryption.

    Raises:
        UserError: the server cannot be reached, does not accept the token, or has no such table.
    """
    try:
        address = urlsplit(uri if isinstance(uri, str) else "")
        is_whole = address.hostname and address.port is not None  # gRPC's own port would be that of HTTPS
    except ValueError:  # no port has such a number
        is_whole = False
    if address.scheme not in ("grpc", "grpc+tcp", "grpc+tls") or not is_whole:
        raise UserError("uri", repr(uri), "grpc+tls://host:port, or grpc://host:port")
    if address.path not in ("", "/") or address.query or address.fragment:
        raise UserError("uri", repr(uri), "nothing behind the port", 'A table is named by table="...".')
    if token:
        check_token(token, "token")
    if token and address.scheme != "grpc+tls" and not (allow_insecure or is_loopback(address.hostname)):
        hint = "Or pass allow_insecure=True: whoever can listen gets the token."
        raise UserError("uri", repr(uri), "grpc+tls:// where a token is sent to another machine", hint)
    server = _Server(uri, token, None if tls_roots is None else _roots(Path(tls_roots)))
    if table is None:
        table = server.only_table()
    seed = None if seed is None else whole("seed", seed, 0, 2**63 - 1)
    request = Request(table, None, 0, seed, None, None if where is None else condition(where))
    found = RemoteTable(server, request)
    if rows is not None:
        found = found[: whole("rows", rows, 0, found.num_rows)]
    return found if columns is None else found.select(columns)


class RemoteTable(VirtualTable):
    """A table whose rows a server computes; :func:`connect` makes it."""

    def __init__(self, server: _Server, request: Request) -> None:
        info = server.info(request)
        fixed = Request.read(info.endpoints[0].ticket.ticket)
        self._server, self._name = server, f"{request.table} at {server.uri}"
        self._first, self._rows = fixed.first, fixed.rows
        self.seed, self.where, self.digest = fixed.seed, fixed.where, fixed.generator
        self._request = fixed
        self._set_columns({field.name: _Column(field) for field in info.schema}, None)

    def batches(self, columns: Iterable[str] | None = None) -> pa.RecordBatchReader:
        """Return a new stream of all rows, with some or all of the columns."""
        names = chosen(self._columns if columns is None else columns, self._columns)
        schema = pa.schema([self._columns[name].field() for name in names])
        request = Request(
            **vars(self._request) | {"first": self._first, "rows": self._rows, "columns": names}
        )
        return pa.RecordBatchReader.from_batches(schema, self._server.rows(request))

    matching = ComputedDataset.matching  # here, no column is for nothing

    def take(self, indices: Sequence[int] | np.ndarray, **options: Any) -> pa.Table:
        """Return rows of this table in any order; what is read is the range from the first to the last."""
        index = self._checked(indices)
        if not len(index):
            return self[:0].to_table()
        low = int(index.min())
        return self[low : int(index.max()) + 1].to_table().take(index - low)

    def __reduce__(self) -> NoReturn:
        raise UserError("table", "a table of a server to pickle", "connect(...) in the other process")


@dataclass(frozen=True)
class _Column:
    """A column that somebody else computes."""

    of: pa.Field

    def field(self) -> pa.Field:
        return self.of


class _Server:
    """A connection, made anew in each process: gRPC does not survive a fork."""

    def __init__(self, uri: str, token: str | None, roots: bytes | None) -> None:
        self.uri, self._roots, self._own = uri, roots, (0, None)
        self._headers = [(b"authorization", f"Bearer {token}".encode())] if token else []

    def only_table(self) -> str:
        """Return the name of the only table."""
        with self._errors():
            flights = self._client().list_flights(options=self._options(_PATIENCE))
            names = [info.descriptor.path[0].decode() for info in flights]
        if len(names) != 1:
            raise UserError("table", "None", "one of " + ", ".join(names) if names else "a server with one")
        return names[0]

    def info(self, request: Request) -> flight.FlightInfo:
        """Return what the server says about some rows."""
        descriptor = flight.FlightDescriptor.for_command(request.content())
        with self._errors():
            return self._client().get_flight_info(descriptor, self._options(_PATIENCE))

    def rows(self, request: Request) -> Iterator[pa.RecordBatch]:
        """Yield the rows; who stops early ends the stream."""
        with self._errors():
            stream = self._client().do_get(flight.Ticket(request.content()), self._options(None))
            try:
                for chunk in stream:
                    yield chunk.data
            finally:
                stream.cancel()

    def _client(self) -> flight.FlightClient:
        pid, client = self._own
        if pid != os.getpid():
            client = flight.connect(self.uri, tls_root_certs=self._roots)
            self._own = os.getpid(), client
        return client

    def _options(self, timeout: float | None) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(timeout=timeout, headers=self._headers, read_options=_aligned())

    def _errors(self) -> _Errors:
        return _Errors(self.uri)


def _aligned() -> pa.ipc.IpcReadOptions:
    """Return options that align what comes out of gRPC, where pyarrow can: its scanner warns otherwise."""
    alignment = getattr(pa.ipc, "Alignment", None)
    return pa.ipc.IpcReadOptions(**({"ensure_alignment": alignment.DataTypeSpecific} if alignment else {}))


class _Errors:
    """Tells what a server refuses, and that it cannot be reached, in one line."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, (flight.FlightError, pa.ArrowException)):
            return
        text, is_its_own, _ = str(error).partition(" Detail:")  # what a server says comes with its kind
        text = text.partition(". gRPC client debug context")[0].rstrip(". ")
        wanted, hint = "a request that the server takes" if is_its_own else "an answer", ""
        if isinstance(error, flight.FlightUnavailableError) and is_its_own:
            wanted, hint = "a server that has room", "Try again later."
        elif isinstance(error, (flight.FlightUnavailableError, flight.FlightTimedOutError)):
            wanted, hint = "a server that answers", "Is it up, and does grpc:// or grpc+tls:// match it?"
        elif isinstance(error, flight.FlightUnauthenticatedError):
            wanted = "the token of a client that the server knows"
        raise UserError(self.uri, repr(text[:500]), wanted, hint) from error


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and nobody else can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _roots(path: Path) -> bytes:
    wanted = "a file of PEM certificates"
    try:  # gRPC would only say that no server answers
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        return path.read_bytes()
    except ssl.SSLError as error:
        reason = (error.reason or "damaged").lower().replace("_", " ")
        raise UserError("tls_roots", f"'{path}', {reason}", wanted) from None
    except OSError as error:
        raise UserError("tls_roots", f"'{path}', {error.strerror.lower()}", wanted) from None
