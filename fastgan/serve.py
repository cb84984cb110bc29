"""``python -m fastgan.serve``: generator files as tables of an Arrow Flight server."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fastgan import malloc
from fastgan.cli import Parser, add_device, discard_output, run_command, whole_number

_EPILOG = """a client, by any Arrow Flight library or here:
  import os, fastgan.virtual
  table = fastgan.virtual.connect("grpc://127.0.0.1:8815", os.environ.get("FASTGAN_TOKEN"))

exit codes: 0 stopped by SIGTERM or SIGINT, 2 bad input or an address that cannot be listened at"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_serve, argv)


def _parser() -> Parser:
    parser = Parser(
        "fastgan.serve",
        "Serve the rows of generator files by Arrow Flight, computed while they are sent. Clients need a "
        "token if --tokens or the environment variable FASTGAN_TOKEN has one. Only this machine is "
        "served unless --host says otherwise, which needs a token and TLS.",
        _EPILOG,
    )
    parser.add_argument("files", metavar="[NAME=]FILE", nargs="+", help="generator files, as tables NAME")
    parser.add_argument("--host", metavar="ADDRESS", help="to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", metavar="N", help="0 to 65535, 0 for any free one (default: 8815)")
    parser.add_argument("--tokens", metavar="FILE", help="a client's name and its token in each line")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    text = "listen at other addresses without token or TLS"
    parser.add_argument("--allow-insecure", action="store_true", help=text)
    parser.add_argument("--rows", metavar="N", help="of each table (1 to 2**62; default: 2**40)")
    parser.add_argument("--max-rows", metavar="N", help="of one request (1 to 2**62; default: no limit)")
    parser.add_argument("--max-rate", metavar="N", help="rows a second for each client (default: no limit)")
    parser.add_argument(
        "--max-streams", metavar="N", help="at a time, of each client (1 to 1024; default: 16)"
    )
    parser.add_argument("--max-total", metavar="N", help="streams at a time, of all (1 to 1024; default: 64)")
    text = "that compute a stream's rows (1 to 1024; default: the usable cores)"
    parser.add_argument("--threads", metavar="N", help=text)
    add_device(parser)
    text = "that live streams have after SIGTERM (0 to 3600 seconds; default: 10)"
    parser.add_argument("--grace", metavar="N", help=text)
    parser.add_argument(
        "--log", metavar="FILE", help="JSON line for each call, without secrets (default: stderr)"
    )
    return parser


def _serve(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse(argv)
    number = _numbers(arguments)
    host = arguments.get("host", "127.0.0.1")
    port, grace = number("port", 0, 65535, 8815), number("grace", 0, 3600, 10)
    rows = number("rows", 1, 2**62, 2**40)
    threads = number("threads", 1, 1024, 0)
    from fastgan import generator_file
    from fastgan.errors import UserError
    from fastgan.virtual.access import VARIABLE, Limits, Log, Tokens
    from fastgan.virtual.remote import is_loopback
    from fastgan.virtual.server import Served, Server

    limits = Limits(
        rows=number("max-rows", 1, 2**62, 2**62),
        rate=number("max-rate", 1, 2**53, 0) or None,
        streams=number("max-streams", 1, 1024, 16),
        total=number("max-total", 1, 1024, 64),
    )
    tokens = Tokens.load(Path(arguments["tokens"]) if "tokens" in arguments else None, os.environ)
    certificate = _certificate(arguments)
    lacking = [what for what, given in (("a token", tokens), ("TLS", certificate)) if not given]
    if lacking and not is_loopback(host) and "allow_insecure" not in arguments:
        got = f"'{host}' without {' and '.join(lacking)}"
        hint = f"Give --tls-cert, --tls-key and --tokens or {VARIABLE}, or say --allow-insecure."
        raise UserError("--host", got, "a loopback address such as 127.0.0.1, or both of them", hint)
    tables = {}
    for argument in arguments["files"]:
        name, file = _named(argument)
        if name in tables:
            raise UserError(argument, f"a second table {name}", "one of each name", "Write NAME=FILE.")
        tables[name] = Served.of(generator_file.load(file), rows)
    _share_memory()
    signals: list[int] = []
    for number_of in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_of, lambda number, _: signals.append(number))
    _check_free(host, port)
    log = Log(_log(arguments.get("log")))
    shown = f"[{host}]" if ":" in host else host
    scheme = "grpc+tls" if certificate else "grpc"
    server = Server(
        f"{scheme}://{shown}:{port}",
        tables,
        tokens=tokens,
        certificate=certificate,
        limits=limits,
        log=log,
        threads=threads,
        device=arguments.get("device", "cpu"),
    )
    guard = "with a token" if tokens else "without tokens"
    _say(f"{scheme}://{shown}:{server.port} serves {', '.join(tables)}, {guard}")
    # A handler runs between any two bytecodes of this thread, perhaps while it holds a lock: it must take
    # none, as threading.Event would. A signal that another thread takes does not end this one's sleep, and
    # Python runs handlers in this one alone: without a limit to the sleep, such a signal is never heard.
    while not signals:
        time.sleep(0.2)
    _say(f"stopping: {server.traffic.streams} live streams have {grace} s")
    if not server.close(grace):
        # A stream that nobody reads holds its thread in gRPC, which only the end of the process ends: its
        # client sees a broken connection, never a stream that seems whole.
        _say("stopped: streams that nobody read were cut off")
        os._exit(0)
    _say("stopped")
    return 0


def _say(line: str) -> None:
    """Print a line for whoever started the server; that its reader has gone stops nothing."""
    try:
        print(line, flush=True)
    except OSError:
        discard_output()


def _share_memory() -> None:
    """Let all threads of this process take memory from two heaps, and give it back to them.

    glibc gives threads a heap each, up to eight for each core, which keep what batches of past streams took:
    286 MB instead of 152 after 14 times 8 streams on two cores, and 2% to 5% less speed.
    """
    malloc.set_option(malloc.ARENA_MAX, 2)


def _numbers(arguments: dict[str, Any]) -> Any:
    def number(name: str, low: int, high: int, default: int) -> int:
        text = arguments.get(name.replace("-", "_"))
        return default if text is None else whole_number(f"--{name}", text, low, high)

    return number


def _named(argument: str) -> tuple[str, str]:
    """Return name and file of a table. The name is the file's, or its folder's where all have the same."""
    from fastgan import generator_file

    name, sign, file = argument.partition("=")
    if not sign or Path(argument).exists():
        name, file = "", argument
    path = Path(file)
    return name or (path.resolve().parent.name if path.name == generator_file.NAME else path.stem), file


def _log(path: str | None) -> BinaryIO:
    """Open the access log, unbuffered: stderr, or a file to append to."""
    from fastgan.errors import UserError

    if path is None:
        return open(sys.stderr.fileno(), "wb", buffering=0, closefd=False)
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise UserError(f"--log {path}", error.strerror.lower(), "a file to write to") from None


def _certificate(arguments: dict[str, Any]) -> tuple[str, str] | None:
    from fastgan.errors import UserError

    if "tls_cert" not in arguments and "tls_key" not in arguments:
        return None
    texts = []
    for name in ("tls_cert", "tls_key"):
        flag = "--" + name.replace("_", "-")
        if name not in arguments:
            raise UserError(flag, "nothing", "a file: certificate and key go together")
        try:
            texts.append(Path(arguments[name]).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no PEM text"
            raise UserError(f"{flag} {arguments[name]}", reason.lower(), "a PEM file") from None
        if "-----BEGIN " not in texts[-1]:
            raise UserError(f"{flag} {arguments[name]}", "no PEM text", "a PEM file")
    import ssl

    files = arguments["tls_cert"], arguments["tls_key"]
    try:  # gRPC would only say that the server did not start; a key with a password is none for it, either
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files, password=str)
    except ssl.SSLError as error:
        reason = (error.reason or "damaged").lower().replace("_", " ")
        wanted = "a certificate and its private key, without a password"
        raise UserError(f"--tls-cert {files[0]} --tls-key {files[1]}", reason, wanted) from None
    return texts[0], texts[1]


def _check_free(host: str, port: int) -> None:
    """Say why an address cannot be listened at: gRPC only says that the server did not start."""
    from fastgan.errors import UserError

    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"--host {host} --port {port}", reason, "an address of this machine, a free port"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
