"""Virtual tables in DuckDB, polars, pandas and pyarrow: the same rows, only what is asked for."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.programs import run_program

from fastgan import generator_file
from fastgan.virtual import VirtualTable
from fastgan.virtual.columns import Reader


@pytest.fixture
def read(monkeypatch):
    """Collect the columns and row counts of all batches."""
    seen = []
    real = Reader.batch

    def batch(self, index):
        seen.append((self.schema.names, len(index)))
        return real(self, index)

    monkeypatch.setattr(Reader, "batch", batch)
    return seen


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        yield connection


# ---- DuckDB finds the table by the name of the variable


def test_duckdb_reads_columns_and_rows_that_a_query_needs(labelled, connection, read):
    images = VirtualTable(labelled, 5000)
    (labels,) = images.select(["label"]).to_table().to_pydict().values()
    del read[:]
    assert connection.sql("select count(*) from images").fetchall() == [(5000,)]
    counted = connection.sql("select label, count(*) from images group by 1 order by 1").fetchall()
    assert counted == sorted((name, labels.count(name)) for name in set(labels))
    assert {tuple(names) for names, _ in read} == {("row",), ("label",)}
    del read[:]
    some = connection.sql("select row from images where label = 30 order by row limit 3").fetchall()
    assert [row for (row,) in some] == [i for i, name in enumerate(labels) if name == 30][:3]
    assert {tuple(names) for names, _ in read} <= {("row", "label")}


def test_duckdb_scans_again_joins_with_itself_and_stops_early(features, connection, read):
    rows = VirtualTable(features, 20_000)  # noqa: F841 (and `table` is a keyword of SQL)
    total = 19_999 * 10_000
    for _ in range(2):
        assert connection.sql("select sum(row) from rows").fetchall() == [(total,)]
    joined = connection.sql("select count(*) from rows a join rows b on a.row = b.row + 1").fetchall()
    assert joined == [(19_999,)]
    endless = VirtualTable(features, 2**50)
    del read[:]
    assert len(connection.sql("select * from endless limit 10").fetchall()) == 10
    assert endless.num_rows > sum(count for _, count in read) > 0


def test_duckdb_makes_only_the_rows_that_pass_a_filter_of_numbers_and_labels(labelled, connection, read):
    images = VirtualTable(labelled, 5000)
    whole = images.to_table()
    del read[:]
    got = connection.sql("select label, image from images where label = 30").to_arrow_table()
    assert got["image"].to_pylist() == whole.filter(pc.field("label") == 30)["image"].to_pylist()
    assert sum(count for names, count in read if "image" in names) == len(got) < 4000
    endless = VirtualTable(labelled, 2**60)  # noqa: F841
    del read[:]
    which = "row = 7 or row = 123456789012345 or row between 576460752303423488 and 576460752303423488"
    got = connection.sql(f"select row, image from endless where {which} order by row").fetchall()
    assert [row for row, _ in got] == [7, 123456789012345, 2**59]
    assert list(got[0][1]) == whole["image"][7].as_py()
    assert sum(count for names, count in read if "image" in names) == 3
    assert sum(count for _, count in read) < 1000
    del read[:]
    assert connection.sql("select count(*) from endless where row < 5 and row > 7").fetchall() == [(0,)]
    assert not read


def test_a_program_ends_after_queries_that_stopped_early(path):
    code = f"""
import duckdb, polars
from fastgan.virtual import VirtualTable
images = VirtualTable({str(path)!r}, 2**40)
print(len(duckdb.sql("select row, image from images where label = 7 limit 2").fetchall()))
print(len(duckdb.sql("select * from images limit 3").fetchall()))
print(images.head(4).num_rows, images.lazy().head(5).collect().height)
next(images.batches()), next(images.to_batches())
"""
    done = run_program(code)
    assert (done.returncode, done.stdout.split()) == (0, ["2", "3", "4", "5"]), done.stderr


@pytest.mark.parametrize("reader", ["duckdb", "polars", "all rows at once"])
def test_memory_does_not_grow_with_the_rows(features, tmp_path, reader):
    """As with the 10 million rows of ``python -m bench.peers.virtual 10_000_000``, which takes seconds."""
    generator_file.save(tmp_path / "g", features)
    code = f"""
import sys
from pathlib import Path
import duckdb, polars as pl
from fastgan.virtual import VirtualTable
def most():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
names = [f"x{{i}}" for i in range(16)]
connection = duckdb.connect(config=dict(threads=1))
def read(rows):
    numbers = VirtualTable({str(tmp_path / "g")!r}, rows, threads=1)
    if {reader!r} == "duckdb":
        connection.sql("select " + ", ".join(f"avg({{n}})" for n in names) + " from numbers").fetchall()
    elif {reader!r} == "polars":
        numbers.lazy().select(pl.col(names).mean()).collect(engine="streaming")
    else:
        numbers.to_table()
read(100_000)
few = most()
read(2_000_000)
print(most() - few)
"""
    done = run_program(code)
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout)
    if reader == "all rows at once":  # 72 bytes each: this test would see it
        assert grown > 100
    else:
        assert grown < 50


def test_duckdb_values_and_types(labelled, features, connection):
    images, plain = VirtualTable(labelled, 40), VirtualTable(features, 40)
    types = {name: kind for name, kind, *_ in connection.sql("describe select * from images").fetchall()}
    assert types == {"row": "BIGINT", "label": "BIGINT", "image": "UTINYINT[12]"}
    got = connection.sql("select image from images").fetchall()
    assert [list(image) for (image,) in got] == images.to_table()["image"].to_pylist()
    got = connection.sql("select * from plain").to_arrow_table()
    assert got.equals(plain.to_table().cast(got.schema))


def test_duckdb_text_labels(connection):
    from helpers.generators import generator_of, spec_of

    people = VirtualTable(generator_of(spec_of(5, 3), names=("no", "yes", "é")), 1000)
    labels = people.to_table()["label"].to_pylist()
    for name in ("no", "é"):
        got = connection.execute("select count(*) from people where label = ?", [name]).fetchall()
        assert got == [(labels.count(name),)]


# ---- polars


def test_polars_reads_streams(generator):
    table = VirtualTable(generator, 3000)
    frame = pl.DataFrame(table)
    assert frame.shape == (3000, len(table.column_names))
    assert frame.equals(pl.DataFrame(table)) and frame.equals(table.lazy().collect())
    assert frame["row"].to_list() == list(range(3000))


def test_polars_pushes_down_columns_predicates_and_limits(labelled, features, read):
    images = VirtualTable(labelled, 50_000).lazy()
    frame = images.collect()
    del read[:]
    got = images.filter(pl.col("label") == 30).select("row").collect()
    assert got["row"].to_list() == frame.filter(pl.col("label") == 30)["row"].to_list()
    assert {tuple(names) for names, _ in read} == {("row", "label")}
    del read[:]
    assert images.head(10).collect().equals(frame.head(10))
    assert sum(count for _, count in read) == 10
    del read[:]
    got = images.filter((pl.col("label") == 30) & (pl.col("row") > 40_000)).collect()
    assert got.equals(frame.filter((pl.col("label") == 30) & (pl.col("row") > 40_000)))
    assert sum(count for names, count in read if "image" in names) == len(got) < 10_000
    plain = VirtualTable(features, 50_000).lazy()
    del read[:]
    total = plain.select(pl.col("x3").sum()).collect(engine="streaming").item()
    assert {tuple(names) for names, _ in read} == {("x3",)}
    assert total == pytest.approx(VirtualTable(features, 50_000).to_table()["x3"].to_numpy().sum(), rel=1e-3)


ROW = pl.col("row")


@pytest.mark.parametrize(
    ("predicate", "most"),
    [
        (ROW == 2**50 + 7, 256),
        (pl.col("label").ne(7) & (ROW >= 2**50) & (ROW < 2**50 + 600), 1024),
        (ROW.is_between(2**59, 2**59 + 9) & (ROW % 3 == 1), 256),
        ((ROW == 5) | (ROW == 2**55), 512),
        (~(ROW < 2**60 - 30), 256),
        ((ROW == 5) & (pl.col("image").arr.sum() >= 0), 256),
    ],
    ids=str,
)
def test_polars_reads_the_rows_that_a_predicate_names_only(labelled, read, predicate, most):
    table = VirtualTable(labelled, 2**60)
    got = table.lazy().filter(predicate).collect()
    assert sum(count for _, count in read) <= 2 * most  # once to test them, once to make them
    index = np.concatenate([np.arange(n, n + 1024) for n in (0, 2**50, 2**55, 2**59, 2**60 - 1024)])
    assert len(got) and got.equals(pl.DataFrame(table.take(index)).filter(predicate))


def test_polars_finds_rows_of_slices_and_of_the_limit(labelled):
    table = VirtualTable(labelled, 2**60)[2**40 : 2**50]
    assert table.lazy().filter(ROW == 2**45).collect()["row"].to_list() == [2**45]
    assert table.lazy().filter(ROW == 5).collect().is_empty()
    assert table.lazy().head(100).filter(ROW >= 2**40 + 98).collect()["row"].to_list() == [
        2**40 + 98,
        2**40 + 99,
    ]


def test_polars_reads_all_rows_where_the_predicate_names_none(labelled):
    frame = VirtualTable(labelled, 5000).lazy()
    assert frame.filter(ROW % 1000 == 3).collect()["row"].to_list() == [3, 1003, 2003, 3003, 4003]
    assert frame.filter((ROW == 5) | (pl.col("image").arr.sum() >= 0)).collect().height == 5000


@pytest.mark.parametrize(
    "query",
    [
        lambda f: f.filter(pl.col("label") == 7).head(3),
        lambda f: f.head(3).filter(pl.col("label") == 7),
        lambda f: f.filter(pl.col("row") % 7 == 3).select("label").tail(4),
        lambda f: f.slice(5, 4).select("row"),
        lambda f: f.select(pl.len()),
        lambda f: f.with_columns(double=pl.col("row") * 2).filter(pl.col("double") > 100).head(5),
        lambda f: f.group_by("label").len().sort("label"),
        lambda f: f.join(f, on="row").select("row", "label", "label_right").sort("row").head(4),
    ],
)
def test_polars_queries_give_what_they_give_in_memory(labelled, query):
    table = VirtualTable(labelled, 3000)
    assert query(table.lazy()).collect().equals(query(pl.DataFrame(table).lazy()).collect())


def test_duckdb_reads_the_lazy_frame_too(labelled, connection):
    frame = VirtualTable(labelled, 500).lazy()  # noqa: F841
    assert connection.sql("select count(*), sum(row) from frame").fetchall() == [(500, 499 * 250)]


# ---- pandas and pyarrow


def test_pandas(generator):
    table = VirtualTable(generator, 300)
    frame = table.to_pandas()
    assert list(frame.columns) == table.column_names and frame["row"].tolist() == list(range(300))
    if hasattr(pd.DataFrame, "from_arrow"):  # pandas 3
        assert pd.DataFrame.from_arrow(table).shape == frame.shape


def test_pyarrow(generator):
    table = VirtualTable(generator, 5000)
    assert pa.table(table).equals(table.to_table())
    with pa.RecordBatchReader.from_stream(table) as stream:
        assert sum(batch.num_rows for batch in stream) == 5000
    assert pa.schema(table) == table.schema


def test_every_form_of_access_gives_the_same_rows(labelled, connection):
    from fastgan.virtual import VirtualDataset

    images = VirtualTable(labelled, 300)
    wanted = np.array(images.to_table()["image"].to_pylist())
    pixels = [
        [list(row) for (row,) in connection.sql("select image from images order by row").fetchall()],
        pl.DataFrame(images)["image"].to_list(),
        images.lazy().select("image").collect()["image"].to_list(),
        [list(row) for row in images.to_pandas()["image"]],
        np.concatenate([b.column("image").values.to_numpy().reshape(-1, 12) for b in images.batches()]),
        images.take(range(300))["image"].to_pylist(),
        [VirtualDataset(labelled, 300)[i][0].reshape(-1).tolist() for i in range(300)],
    ]
    for got in pixels:
        np.testing.assert_array_equal(np.array(got), wanted)
