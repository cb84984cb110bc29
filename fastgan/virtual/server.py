"""An Arrow Flight server of virtual tables: rows are computed while they are sent, none can be written.

A stream has two batches of some 2 MB in hand, one on its way and the next. gRPC asks for another when the
client has room for it, so a slow reader holds back its own stream and nothing else: with gRPC's own buffers,
a stream that nobody reads takes 6 to 12 MB, at most 20, and ``Limits`` bound how many there are. All streams
of a file share what computes rows, each with a copy of the weights: one for each processor, or up to 4 if
clients choose different columns. On a GPU, batches have some 16 MB, and two copies compute at a time.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from fastgan import generator_file
from fastgan.errors import UserError, brief, nearest
from fastgan.trained import TrainedGenerator
from fastgan.virtual.access import Busy, Limits, Log, Tokens, Traffic
from fastgan.virtual.request import Request
from fastgan.virtual.source import need
from fastgan.virtual.streams import stream
from fastgan.virtual.table import VirtualTable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.flight as flight
else:
    pa, flight = need("pyarrow"), need("pyarrow.flight")

_FACTORY = "fastgan"
_MOST_TEXT = 1000  # characters of an error: gRPC breaks the connection over some 16 kB


@dataclass(frozen=True)
class Served:
    """A generator under a name.

    Attributes:
        generator: in memory; what becomes of its file changes nothing.
        digest: of its content.
        rows: that are offered.
    """

    generator: TrainedGenerator
    digest: str
    rows: int

    @classmethod
    def of(cls, generator: TrainedGenerator, rows: int) -> Served:
        """Return ``generator`` with its digest."""
        return cls(generator, generator_file.digest(generator), rows)


class Server(flight.FlightServerBase):
    """Serves tables from the moment it is made. :meth:`close` ends it.

    Args:
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 for any free one (see ``port``).
        tables: generators by the names of their tables.
        tokens: that clients need; None for none.
        certificate: PEM texts of certificate chain and key, for TLS.
        limits: of each client.
        log: gets a line for each call.
        threads: that compute the rows of a stream; 0 for as many as this process may use.
        device: that computes rows, as of :class:`~fastgan.virtual.table.VirtualTable`.
    """

    def __init__(
        self,
        location: str,
        tables: Mapping[str, Served],
        *,
        tokens: Tokens | None = None,
        certificate: tuple[str, str] | None = None,
        limits: Limits | None = None,
        log: Log | None = None,
        threads: int = 0,
        device: str = "cpu",
    ) -> None:
        self.tables, self.log = dict(tables), log or Log(None)
        # One of each file: all of its streams share what computes rows.
        self._whole = {
            k: VirtualTable(v.generator, v.rows, threads=threads, device=device) for k, v in tables.items()
        }
        self.traffic = Traffic(limits or Limits())
        self._draining = threading.Event()
        super().__init__(
            location,
            tls_certificates=[certificate] if certificate else None,
            middleware={_FACTORY: _Gate(tokens, self.log)},
        )

    # ---- what clients call

    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """Return one flight for each table."""
        with self._call(context, "list"):
            return iter([self._info(Request(name)) for name in self.tables])

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Return schema, number of rows and ticket; ``descriptor`` is a table's name or a request."""
        with self._call(context, "info") as line:
            return self._info(self._described(descriptor, line))

    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """Return the schema alone."""
        with self._call(context, "schema") as line:
            return flight.SchemaResult(self._table(self._described(descriptor, line)).schema)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """Return the rows that the ticket asks for."""
        with self._call(context, "get") as line:
            request = Request.read(ticket.ticket)
            line.update(request.given())
            return flight.RecordBatchStream(self._reader(self._table(request), line, context))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer ``health`` with JSON."""
        with self._call(context, "action") as line:
            line["action"] = action.type
            if action.type != "health":
                raise UserError("action", brief(action.type), "health")
            tables = {name: served.digest for name, served in self.tables.items()}
            status = "draining" if self._draining.is_set() else "ok"
            answer = {"status": status, "streams": self.traffic.streams, "lost_log_lines": self.log.lost}
            answer["tables"] = tables
            return iter([flight.Result(json.dumps(answer).encode())])

    def list_actions(self, context: flight.ServerCallContext) -> list[flight.ActionType]:
        """Return the one action."""
        return [flight.ActionType("health", "Whether the server serves, its streams, its tables' digests.")]

    def do_put(self, context: flight.ServerCallContext, *_: Any) -> NoReturn:
        """Refuse."""
        with self._call(context, "put"):
            raise UserError("server", "rows to store", "requests to read: it is read-only")

    def do_exchange(self, context: flight.ServerCallContext, *_: Any) -> NoReturn:
        """Refuse."""
        with self._call(context, "exchange"):
            raise UserError("server", "an exchange", "requests to read: it is read-only")

    # ---- how they are answered

    def _described(self, descriptor: flight.FlightDescriptor, line: dict[str, Any]) -> Request:
        if descriptor.descriptor_type == flight.DescriptorType.PATH:
            if len(descriptor.path) != 1:
                raise UserError("path", f"{len(descriptor.path)} parts", "one: the name of a table")
            request = Request(descriptor.path[0].decode(errors="replace"))
        else:
            request = Request.read(descriptor.command or b"")
        line.update(request.given())
        return request

    def _served(self, request: Request) -> Served:
        if request.table not in self.tables:
            known = ", ".join(self.tables)
            hint = nearest(request.table, self.tables)
            raise UserError("table", brief(request.table), f"one of {known}", hint)
        served = self.tables[request.table]
        if request.generator not in (None, served.digest):
            hint = "The file was replaced: connect again."
            raise UserError("generator", brief(request.generator), served.digest, hint)
        return served

    def _table(self, request: Request) -> VirtualTable:
        served = self._served(request)
        if request.first > served.rows:
            raise UserError("first", f"{request.first}", f"0 to {served.rows}")
        rows = served.rows - request.first if request.rows is None else request.rows
        if request.first + rows > served.rows:
            got = f"rows {request.first} to {request.first + rows - 1}"
            raise UserError("rows", got, f"rows 0 to {served.rows - 1}")
        table = self._whole[request.table].variant(request.seed, request.where)
        table = table[request.first : request.first + rows]
        return table if request.columns is None else table.select(request.columns)

    def _reader(
        self, table: VirtualTable, line: dict[str, Any], context: flight.ServerCallContext
    ) -> pa.RecordBatchReader:
        limits = self.traffic.limits
        if table.num_rows > limits.rows:
            raise UserError("rows", f"{table.num_rows:,}", f"at most {limits.rows:,} in a request")
        batches = table.batches(most=None if limits.rate is None else max(int(limits.rate), 1))
        self.traffic.enter(line["client"])
        rows = stream(self.traffic, self.log, batches, line, context.is_cancelled)
        next(rows)  # from here on its end counts, even if nothing is read
        return pa.RecordBatchReader.from_batches(batches.schema, rows)

    def _info(self, request: Request) -> flight.FlightInfo:
        served, table = self._served(request), self._table(request)
        request = replace(request, rows=table.num_rows, seed=table.seed, generator=served.digest)
        endpoint = flight.FlightEndpoint(request.content(), [])
        descriptor = flight.FlightDescriptor.for_path(request.table)
        return flight.FlightInfo(table.schema, descriptor, [endpoint], table.num_rows, -1)

    @contextlib.contextmanager
    def _call(self, context: flight.ServerCallContext, method: str) -> Iterator[dict[str, Any]]:
        """Log a call that fails, or is over when it returns; turn what goes wrong into Flight's own errors.

        Other exceptions would reach the client with their traceback.
        """
        client = context.get_middleware(_FACTORY).client
        line = {"client": client or _address(context.peer()), "peer": context.peer(), "method": method}
        begin, failed = time.perf_counter(), None
        try:
            if self._draining.is_set() and method != "action":
                raise Busy("the server is shutting down")
            yield line
        except UserError as error:
            failed = flight.FlightServerError(str(error)[:_MOST_TEXT])
        except Busy as error:
            failed = flight.FlightUnavailableError(str(error))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            failed = flight.FlightInternalError("a bug in the server; its error output has more")
        if failed or method != "get":
            outcome = failed.args[0] if failed else "ok"
            self.log.write(**line, outcome=outcome, seconds=round(time.perf_counter() - begin, 6))
        if failed:
            raise failed

    # ---- the end

    def close(self, grace: float) -> bool:
        """Refuse new calls, give live streams ``grace`` seconds, end them, and return whether all ended.

        A stream that nobody reads cannot be ended but with the process: its thread waits in gRPC.
        """
        self._draining.set()
        end = time.monotonic() + grace
        while self.traffic.streams and time.monotonic() < end:
            time.sleep(0.02)
        self.traffic.closing.set()
        ending = threading.Thread(target=self.shutdown, daemon=True)
        ending.start()
        ending.join(1)
        return not ending.is_alive()


class _Gate(flight.ServerMiddlewareFactory):
    """Lets calls with a token pass, whatever they call."""

    def __init__(self, tokens: Tokens | None, log: Log) -> None:
        super().__init__()
        self.tokens, self.log = tokens, log

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[Any]]) -> _Caller:
        """Return who calls."""
        if self.tokens is None:
            return _Caller(None)
        given = [str(v) for k, values in headers.items() if k.lower() == "authorization" for v in values]
        client = self.tokens.client(given[0]) if len(given) == 1 else None
        if client is None:
            self.log.write(client=None, method=info.method.name.lower(), outcome="no valid token")
            raise flight.FlightUnauthenticatedError("a valid token is needed: Authorization: Bearer ...")
        return _Caller(client)


class _Caller(flight.ServerMiddleware):
    """Whose token a call had; None where none is needed."""

    def __init__(self, client: str | None) -> None:
        super().__init__()
        self.client = client


def _address(peer: str) -> str:
    """Return ``ipv4:127.0.0.1`` of ``ipv4:127.0.0.1:50312``: one client, whatever its connections."""
    return peer.rpartition(":")[0]
