"""The server and its clients over real sockets: the same rows as here, for those who may have them."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from served import TOKEN, Process, calls

from fastgan import generator_file
from fastgan.errors import UserError
from fastgan.virtual import VirtualTable, connect


@pytest.fixture(scope="module")
def tables(files):
    return {p.stem: VirtualTable(p, 2**40) for p in sorted(files.iterdir())}


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    paths = map(str, sorted(files.iterdir()))
    with Process(tmp_path_factory.mktemp("log"), *paths, "--threads", "1") as process:
        yield process


@pytest.fixture
def client(server):
    with flight.connect(server.uri) as client:
        yield client


def get(client, **request):
    return client.do_get(flight.Ticket(json.dumps(request).encode()), calls()).read_all()


# ---- plain pyarrow clients


def test_list_schema_and_info(client, tables):
    flights = list(client.list_flights())
    assert [f.descriptor.path for f in flights] == [[name.encode()] for name in tables]
    for found, (name, table) in zip(flights, tables.items(), strict=True):
        assert found.schema == table.schema and found.total_records == 2**40
        descriptor = flight.FlightDescriptor.for_path(name)
        assert client.get_schema(descriptor).schema == table.schema
        asked = {"table": name, "first": 7, "rows": 5, "columns": ["row"]}
        info = client.get_flight_info(flight.FlightDescriptor.for_command(json.dumps(asked)))
        assert info.schema == table.select(["row"]).schema and info.total_records == 5
        read = client.do_get(info.endpoints[0].ticket).read_all()
        assert read.equals(table[7:12].select(["row"]).to_table())


def test_rows_are_those_of_the_file(client, tables):
    for name, table in tables.items():
        assert get(client, table=name, rows=3000).equals(table[:3000].to_table())
        far = 2**40 - 10
        assert get(client, table=name, first=far).equals(table[far:].to_table())
    generator = tables["people"].generator
    other = VirtualTable(generator, 50, 9, {"label": "é"}, ["x1", "label"]).to_table()
    read = get(client, table="people", rows=50, seed=9, where={"label": "é"}, columns=["x1", "label"])
    assert read.equals(other)
    assert get(client, table="people", rows=0).num_rows == 0


def test_adbc_reads_what_a_flight_info_tells(server, client, tables):
    """The ADBC driver of Flight SQL, given a partition; queries it cannot ask: SQL is for the client."""
    adbc = pytest.importorskip("adbc_driver_flightsql.dbapi")
    command = flight.FlightDescriptor.for_command(json.dumps({"table": "people", "first": 5, "rows": 70}))
    partition = client.get_flight_info(command).serialize()
    with adbc.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_read_partition(partition)
        assert cursor.fetch_arrow_table().equals(tables["people"][5:75].to_table())
        with pytest.raises(adbc.Error):
            cursor.execute("select 1")


def test_health(server, client, tables):
    assert [a.type for a in client.list_actions()] == ["health"]
    health = server.health()
    assert health["status"] == "ok" and health["tables"].keys() == tables.keys()
    assert health["tables"]["images"] == generator_file.digest(tables["images"].generator)


def test_nothing_can_be_written(client):
    writer, _ = client.do_put(flight.FlightDescriptor.for_path("images"), pa.schema([]))
    with pytest.raises(flight.FlightError, match="read-only"):
        writer.close()
    with pytest.raises(flight.FlightError, match="read-only"):
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_path("images"))
        with writer:
            reader.read_chunk()


@pytest.mark.parametrize(
    "request_, words",
    [
        ({"table": "image"}, "Did you mean 'images'"),
        ({"table": "images", "columns": ["pixel"]}, "columns"),
        ({"table": "images", "columns": []}, "columns"),
        ({"table": "images", "columns": "row"}, "columns"),
        ({"table": "images", "rows": -1}, "rows"),
        ({"table": "images", "rows": True}, "rows"),
        ({"table": "images", "rows": 1.5}, "rows"),
        ({"table": "images", "rows": 2**40 + 1}, "rows"),
        ({"table": "images", "first": 2**63}, "first"),
        ({"table": "images", "first": None}, "first"),
        ({"table": "images", "first": 2**40 + 1}, "first: got 1099511627777; wanted 0 to 1099511627776"),
        ({"table": "images", "seed": "1"}, "seed"),
        ({"table": "images", "where": {"label": "8"}}, "where"),
        ({"table": "numbers", "where": {"label": "8"}}, "without labels"),
        ({"table": "images", "rowz": 1}, "rowz"),
        ({"table": ["images"]}, "table"),
        ({"table": "images", "generator": "0" * 64}, "replaced"),
        ([], "request"),
    ],
)
def test_bad_requests_are_told_in_a_line(client, request_, words):
    content = json.dumps(request_)
    with pytest.raises(flight.FlightServerError, match=words) as error:
        client.do_get(flight.Ticket(content), calls()).read_all()
    assert "Traceback" not in str(error.value)
    with pytest.raises(flight.FlightServerError, match=words):
        client.get_flight_info(flight.FlightDescriptor.for_command(content))


# ---- connect


def test_a_table_of_a_server_is_a_table(server, tables):
    for name, here in tables.items():
        there = connect(server.uri, table=name, rows=10_000)
        assert isinstance(there, VirtualTable) and server.uri in repr(there)
        assert there.schema == here.schema and len(there) == 10_000
        assert there.to_table().equals(here[:10_000].to_table())
        part = there[100:200].select(["row"])
        assert part.to_table().equals(here[100:200].select(["row"]).to_table())
        assert there[100:].take([5, 3, 3]).equals(here[100:].take([5, 3, 3]))
        assert there.take([]).num_rows == 0
        assert pl.DataFrame(there[:9]).shape == (9, len(here.column_names))
        assert pa.table(there[:9]).equals(here[:9].to_table())
    some = connect(server.uri, table="people", seed=4, where={"label": "yes"}, columns=["label", "x0"])
    same = VirtualTable(tables["people"].generator, 20, 4, {"label": "yes"}, ["label", "x0"])
    assert some[:20].to_table().equals(same.to_table())
    assert some[:20].to_pandas().equals(same.to_pandas())
    assert some.lazy().head(3).collect().shape == (3, 2)


def test_numbers_and_names_of_numpy(server, tables):
    some = connect(
        server.uri,
        table="images",
        rows=np.int64(20),
        seed=np.int64(4),
        where={"label": np.int64(7)},
        columns=np.array(["label", "row"]),
    )
    same = VirtualTable(tables["images"].generator, 20, 4, {"label": 7}, ["label", "row"])
    assert some.to_table().equals(same.to_table())


def test_queries_ask_for_what_they_read(server, tables):
    numbers = connect(server.uri, table="numbers", rows=30_000)
    before = len(server.lines())
    assert duckdb.sql("select max(row), count(x3) from numbers").fetchall() == [(29_999, 30_000)]
    assert [line["columns"] for line in server.lines()[before:] if line["method"] == "get"] == [["row", "x3"]]
    endless = connect(server.uri, table="numbers")
    before = len(server.lines())
    found = duckdb.sql("select row, x3 from endless where row = 123456789 or row = 7 order by row").fetchall()
    assert found == [(n, tables["numbers"][n : n + 1].to_table()["x3"][0].as_py()) for n in (7, 123456789)]
    asked = [line for line in server.lines()[before:] if line["method"] == "get"]
    assert sum(line["rows"] for line in asked) <= 512
    before = len(server.lines())
    lazy = endless.lazy().filter(
        (pl.col("row") >= 2**39) & (pl.col("row") < 2**39 + 4) & (pl.col("x3") < 9e9)
    )
    assert lazy.collect().equals(pl.DataFrame(tables["numbers"][2**39 : 2**39 + 4]))
    asked = [line for line in server.lines()[before:] if line["method"] == "get"]
    assert sum(line["rows"] for line in asked) <= 512
    assert len(duckdb.sql("select * from endless limit 3").fetchall()) == 3
    with pytest.raises(UserError, match="pickle"):
        pickle.dumps(numbers)


def test_what_connect_refuses(server, tmp_path):
    (tmp_path / "text").write_text("no certificate")
    for arguments, words in (
        ((server.uri,), "one of images, numbers, people"),
        (("http://x",), "uri"),
        (("grpc://127.0.0.1",), "grpc://host:port"),
        (("grpc://127.0.0.1:99999",), "grpc://host:port"),
        (("grpc://example.com:1", TOKEN), "tls"),
        ((server.uri, TOKEN + "\n"), "token: .* printable ASCII"),
        (("grpc+tls://localhost:1",), "tls_roots: got '.*none', no such file"),
        (("grpc+tls://localhost:1",), "tls_roots: got '.*text', no certificate .* PEM"),
        (("grpc+tls://localhost:1",), "tls_roots: got '.*', is a directory"),
        ((Path("x"),), r"uri: got PosixPath\('x'\); wanted grpc"),
        ((server.uri + "/images",), "nothing behind the port"),
    ):
        name = re.search("none|text|$", words)[0]
        options = {"tls_roots": tmp_path / name} if words.startswith("tls_roots") else {}
        with pytest.raises(UserError, match=words):
            connect(*arguments, **options)
    for options, words in (
        ({"table": "image"}, "Did you mean 'images'"),
        ({"table": "images", "where": {"label": 8}}, "where"),
        ({"table": "images", "columns": ["x"]}, "columns"),
        ({"table": "images", "rows": -1}, "rows"),
        ({"table": "images", "where": "label"}, "where: got 'label'; wanted a condition"),
        ({"table": "images", "where": 5}, "where: got 5; wanted a condition"),
        ({"table": "images", "seed": -1}, "seed"),
    ):
        with pytest.raises(UserError, match=words) as error:
            connect(server.uri, **options)
        assert "\n" not in str(error.value) and "Detail" not in str(error.value)
        assert "Is it up" not in str(error.value)
    with pytest.raises(UserError, match="Is it up"):
        connect("grpc://127.0.0.1:9", table="x")


def test_the_readmes_client(files, tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = [b for b in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "connect(" in b]
    with Process(tmp_path, str(files / "images.safetensors"), "--rows", "2000") as server:
        names = {}
        exec(code.replace("grpc://127.0.0.1:8815", server.uri), names)
        assert len(names["table"]) == 2000
