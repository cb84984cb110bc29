"""Who may ask a server: tokens, TLS, limits, addresses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from served import OTHER, TOKEN, Process, until

from fastgan import serve
from fastgan.errors import UserError
from fastgan.virtual import VirtualTable, connect


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with ``cert.pem`` and its ``key.pem``, another key, and the same key behind a password."""
    folder = tmp_path_factory.mktemp("certificates")
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 {names} -keyout key.pem -out cert.pem",
        "genrsa -out other.pem 2048",
        "rsa -aes256 -passout pass:secret -in key.pem -out locked.pem",
    ):
        try:
            subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no openssl to make a certificate with")
    return folder


def test_tokens_over_tls(files, certificates, tmp_path):
    (tmp_path / "tokens").write_text(f"# who\nalice {TOKEN}\nbob {OTHER}\n")
    roots = certificates / "cert.pem"
    secure = ["--tls-cert", str(roots), "--tls-key", str(certificates / "key.pem")]
    file = str(files / "images.safetensors")
    with Process(
        tmp_path, file, *secure, "--tokens", str(tmp_path / "tokens"), "--host", "0.0.0.0"
    ) as server:
        assert server.uri.startswith("grpc+tls://0.0.0.0:") and "with a token" in server.first_line
        uri = server.uri.replace("0.0.0.0", "localhost")
        table = connect(uri, TOKEN, tls_roots=roots)
        assert table[:100].to_table().equals(VirtualTable(file, 100).to_table())
        assert connect(uri, OTHER, tls_roots=roots)[:5].to_table().num_rows == 5
        for wrong in (None, "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
            with pytest.raises(UserError, match="valid token"):
                connect(uri, wrong, tls_roots=roots)
        with pytest.raises(UserError, match="Is it up"):
            connect(uri, TOKEN, table="images")  # a certificate that this machine has no reason to trust
        raw = flight.connect(uri, tls_root_certs=roots.read_bytes())
        for call in (
            lambda: list(raw.list_flights()),
            lambda: list(raw.do_action("health")),
            lambda: raw.list_actions(),
            lambda: raw.get_schema(flight.FlightDescriptor.for_path("images")),
            lambda: raw.do_get(flight.Ticket(b"{}")).read_all(),
            lambda: raw.do_put(flight.FlightDescriptor.for_path("x"), pa.schema([]))[0].close(),
            lambda: raw.do_get(
                flight.Ticket(b"{}"),
                flight.FlightCallOptions(headers=[(b"authorization", b"Basic " + TOKEN.encode())]),
            ).read_all(),
        ):
            with pytest.raises((flight.FlightUnauthenticatedError, OSError), match="valid token"):
                call()
        code, out, err = server.stop()
        assert code == 0
        told = out + err + server.log.read_text() + server.first_line
        assert TOKEN not in told and OTHER not in told and "wrong" not in told
        assert {line["client"] for line in server.lines()} == {None, "alice", "bob"}


def test_a_token_of_the_environment_and_limits(files, tmp_path):
    options = ["--max-rows", "60_000", "--max-rate", "60_000", "--max-streams", "2", "--rows", "100_000"]
    file = f"t={files / 'numbers.safetensors'}"
    with Process(tmp_path, file, *options, FASTGAN_TOKEN=TOKEN) as server:
        table = connect(server.uri, TOKEN)
        assert len(table) == 100_000
        with pytest.raises(UserError, match="60,000 in a request"):
            table.to_table()
        begin = time.monotonic()
        # The first batch is free, the others wait for it: 16 columns make batches of some 30,000 rows.
        assert table[:60_000].to_table().num_rows == 60_000
        assert time.monotonic() - begin > 0.3
        readers = [table[:100].batches() for _ in range(2)]
        held = [table[:60_000].batches() for _ in range(2)]
        for reader in held:
            reader.read_next_batch()
        with pytest.raises(UserError, match="2 streams of this client"):
            table[:10].to_table()
        del held, readers


def test_a_slow_client_that_vanishes_makes_room(files, tmp_path):
    options = ["--max-rate", "20", "--max-streams", "2", "--threads", "1", "--grace", "1"]
    with Process(tmp_path, str(files / "numbers.safetensors"), *options) as server:
        code = f"""
import threading, fastgan.virtual
def read():
    for batch in fastgan.virtual.connect({server.uri!r}).batches():
        print(len(batch), flush=True)
for _ in range(2):
    threading.Thread(target=read).start()
"""
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        begin = time.monotonic()
        assert [child.stdout.readline() for _ in range(4)] == [b"20\n"] * 4
        assert time.monotonic() - begin > 2  # 20 rows came for nothing, the other 60 took a second for 20
        child.kill()
        child.communicate()
        until(lambda: server.health()["streams"] == 0, 10)
        begin = time.monotonic()
        assert connect(server.uri)[:1].to_table().num_rows == 1
        assert time.monotonic() - begin < 5


def test_addresses_and_files_that_are_refused(files, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FASTGAN_TOKEN", raising=False)
    file = str(files / "images.safetensors")
    (tmp_path / "short").write_text("alice short\n")
    (tmp_path / "none").write_text("# nobody\n")
    (tmp_path / "words").write_text("a b c\n")
    (tmp_path / "letters").write_text(f"alice {TOKEN}é\n")
    for arguments, words in (
        ([file, "--host", "0.0.0.0"], "a token and TLS"),
        ([file, "--host", "::"], "a token and TLS"),
        ([file, "--port", "70000"], "--port"),
        ([file, file], "NAME=FILE"),
        ([str(tmp_path / "nothing")], "nothing"),
        ([file, "--tls-cert", str(tmp_path / "short")], "no PEM"),
        ([file, "--tokens", str(tmp_path / "short")], "secrets.token_urlsafe"),
        ([file, "--tokens", str(tmp_path / "none")], "no tokens"),
        ([file, "--tokens", str(tmp_path / "words")], "3 words"),
        ([file, "--tokens", str(tmp_path / "letters")], "printable ASCII"),
        ([file, "--tokens", str(tmp_path / "missing")], "no such file"),
        ([file, "--token", TOKEN], "--token"),
        ([file, "--log", str(tmp_path)], "is a directory"),
        ([file, "--log", str(tmp_path / "missing" / "log")], "no such file"),
        ([file, "--host", "203.0.113.1", "--allow-insecure"], "assign"),
    ):
        assert serve.main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and TOKEN not in error
    monkeypatch.setenv("FASTGAN_TOKEN", "short")
    assert serve.main([file]) == 2
    assert "FASTGAN_TOKEN" in capsys.readouterr().err
    assert os.environ["FASTGAN_TOKEN"] == "short"


@pytest.mark.parametrize(
    ("key", "words"),
    [("other.pem", "mismatch"), ("locked.pem", "without a password"), ("bad.pem", "private key")],
)
def test_certificates_that_do_not_fit(key, words, files, certificates, capsys):
    (certificates / "bad.pem").write_text("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
    pair = ["--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / key)]
    assert serve.main([str(files / "images.safetensors"), *pair]) == 2
    error = capsys.readouterr().err
    assert words in error and "--tls-cert" in error and error.count("\n") == 1


def test_names_of_tables(files, tmp_path):
    folder = tmp_path / "lr=3"
    folder.mkdir()
    for name in ("generator.safetensors", "other.safetensors"):
        (folder / name).write_bytes((files / "images.safetensors").read_bytes())
    plain, other = str(folder / "generator.safetensors"), str(folder / "other.safetensors")
    with Process(tmp_path, plain, other, f"a={plain}") as server:
        assert server.health()["tables"].keys() == {"lr=3", "other", "a"}


def test_a_port_that_is_taken(files, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert serve.main([str(files / "images.safetensors"), "--port", port]) == 2
    assert "in use" in capsys.readouterr().err
