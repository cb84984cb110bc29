"""What goes wrong between a server and its clients: nothing leaks, nothing hangs, and no row is wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from helpers.generators import generator_of, spec_of
from served import HERE, Process, calls, until

from fastgan import generator_file
from fastgan.errors import UserError
from fastgan.virtual import connect


@pytest.fixture
def server(numbers, tmp_path):
    with Process(tmp_path, str(numbers), "--threads", "1", "--max-streams", "64", "--grace", "1") as process:
        yield process


def test_clients_that_vanish(server):
    code = f"""
import os, fastgan.virtual
readers = [fastgan.virtual.connect({server.uri!r}).batches() for _ in range(8)]
for reader in readers:
    reader.read_next_batch()
print("reading", flush=True)
while True:
    for reader in readers:
        reader.read_next_batch()
"""
    memory = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"reading\n"
        assert server.health()["streams"] == 8
        child.kill()
        child.communicate()
        until(lambda: server.health()["streams"] == 0)
        memory.append(server.memory())
    ends = [line for line in server.lines() if line["method"] == "get"]
    assert len(ends) == 24 and {line["outcome"] for line in ends} == {"left"}
    assert memory[-1] < memory[0] + 30, memory
    assert connect(server.uri)[:100].to_table().equals(HERE[:100].to_table())


def test_readers_that_stop_and_that_are_slow(server):
    start = server.memory()
    slow = [connect(server.uri).batches() for _ in range(10)]
    first = [reader.read_next_batch() for reader in slow]
    time.sleep(1)
    # Each holds a batch of 2 MB and what gRPC buffers, 8 to 10 MB in all, however many rows are to come;
    # --max-streams and --max-total say how many there may be.
    held = server.memory()
    assert held < start + 10 * 20
    time.sleep(1)
    assert server.memory() < held + 10
    begin = time.monotonic()
    assert connect(server.uri)[:50_000].to_table().equals(HERE[:50_000].to_table())
    assert time.monotonic() - begin < 10
    rows = first[0].num_rows
    for batch, reader in zip(first, slow, strict=True):
        both = pa.Table.from_batches([batch, reader.read_next_batch()])
        assert both.equals(HERE[: both.num_rows].to_table()) and both.num_rows > rows
    del slow, reader
    until(lambda: server.health()["streams"] == 0)


def test_streams_share_the_weights(tmp_path):
    wide = generator_of(spec_of(784, latent=100, g_hidden=(2048, 2048)))  # 23 MB
    generator_file.save(tmp_path / "wide.safetensors", wide)
    with Process(tmp_path, str(tmp_path / "wide.safetensors"), "--threads", "2") as server:
        connect(server.uri)[:1].to_table()
        start = server.memory()
        readers = [connect(server.uri).batches() for _ in range(8)]
        first = [reader.read_next_batch() for reader in readers]
        time.sleep(1)
        assert server.memory() < start + 8 * 20
        assert all(batch.equals(first[0]) for batch in first)
        del readers


def test_fifty_at_once(server):
    def read(number):
        first = number * 1_000_003
        part = connect(server.uri)[first : first + 20_000]
        return part.to_table().equals(HERE[first : first + 20_000].to_table())

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(read, range(50)))
    assert server.health()["streams"] == 0


def test_too_many_streams_are_refused_and_those_there_go_on(numbers, tmp_path):
    with Process(tmp_path, str(numbers), "--max-total", "3") as server:
        readers = [connect(server.uri).batches() for _ in range(3)]
        batches = [reader.read_next_batch() for reader in readers]
        with pytest.raises(UserError, match=r"3 streams are open.* has room\. Try again later"):
            connect(server.uri)[:5].to_table()
        assert readers[0].read_next_batch().num_rows and batches
        del readers
        until(lambda: server.health()["streams"] == 0)
        assert connect(server.uri)[:5].to_table().num_rows == 5


def mutations():
    """Yield damaged requests: bytes changed, cut, doubled; values of other kinds; deep and long ones."""
    rng = random.Random(7)
    good = (
        b'{"table": "numbers", "rows": 3, "first": 1, "seed": 2, "columns": ["row"], "where": {"label": 1}}'
    )
    strange = [None, True, -1, 2**70, 1.5, "", "x", "\0", "é", [], ["row", 3], {}, {"label": None}, {"a": 1}]
    for _ in range(500):
        content = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(content))
            piece = bytes(rng.randrange(256) for _ in range(rng.randint(0, 4)))
            content[place : place + rng.randint(0, 9)] = piece
        yield bytes(content)
    for key in ("table", "rows", "first", "seed", "columns", "where", "generator", "other"):
        for value in strange:
            yield json.dumps({"table": "numbers", "rows": 3} | {key: value}).encode()
    yield from (
        b"",
        b"[" * 100_000,
        b'{"table":' * 50_000,
        b"\xff" * 1000,
        b"9" * 10_000,
        b"NaN",
        b" " * 2**21,
    )
    yield json.dumps({"table": "numbers", "rows": 3, "columns": ["row"] * 100_000}).encode()


def test_malformed_tickets_and_descriptors(server):
    answered = 0
    with flight.connect(server.uri) as client:
        for content in mutations():
            text = content[:999].decode("latin-1").encode()  # what gRPC takes as a part of a path
            for call in (
                lambda c=content: client.get_flight_info(flight.FlightDescriptor.for_command(c), calls()),
                lambda c=text: client.get_flight_info(flight.FlightDescriptor.for_path(c), calls()),
            ):
                try:
                    info = call()
                except flight.FlightServerError as error:
                    assert "Traceback" not in str(error) and "a bug" not in str(error), content[:200]
                else:
                    assert info.total_records >= 0
            try:
                stream = client.do_get(flight.Ticket(content), calls())
                assert stream.read_chunk().data.num_rows >= 0
                stream.cancel()
                answered += 1
            except StopIteration:
                answered += 1
            except flight.FlightServerError as error:
                assert "Traceback" not in str(error) and "a bug" not in str(error), content[:200]
        for parts in ((), (b"a", b"b"), (b"numbers", b"")):
            with pytest.raises(flight.FlightServerError):
                client.get_flight_info(flight.FlightDescriptor.for_path(*parts), calls())
        with pytest.raises(flight.FlightServerError, match="health"):
            list(client.do_action(("stop", b"x" * 100_000), calls()))
    assert answered > 3  # what was damaged harmlessly
    until(lambda: server.health()["streams"] == 0)
    assert server.child.poll() is None
    _, _, err = server.stop()
    assert "Traceback" not in err


def test_a_file_that_is_replaced_while_it_is_served(server, numbers):
    table = connect(server.uri)
    reader = table.batches()
    rows = [reader.read_next_batch()]
    generator_file.save(numbers, generator_of(spec_of(16, 3, head="linear"), dtype="float32", scale=2.0))
    rows += [reader.read_next_batch() for _ in range(20)]
    read = pa.Table.from_batches(rows)
    assert read.equals(HERE[: read.num_rows].to_table())
    numbers.unlink()
    assert connect(server.uri)[:100].to_table().equals(HERE[:100].to_table())


def test_a_server_that_comes_back_with_another_file(server, numbers, tmp_path):
    table = connect(server.uri)
    server.stop()
    generator_file.save(numbers, generator_of(spec_of(16, 3, head="linear"), dtype="float32", scale=2.0))
    port = server.uri.rpartition(":")[2]
    with Process(tmp_path, str(numbers), "--port", port), pytest.raises(UserError, match="replaced"):
        table[:10].to_table()
