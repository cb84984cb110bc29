"""Filters of a scan: the rows that pass are those of the whole table, however the others are passed over."""

from __future__ import annotations

import operator
from itertools import pairwise

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.generators import generator_of, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.virtual import VirtualTable
from fastgan.virtual.ranges import possible_ranges

TABLE = VirtualTable(generator_of(spec_of(4, 3), names=("7", "-1", "30")), 3000)[500:]
WHOLE = TABLE.to_table()
OPERATORS = ["=", "<>", "<", "<=", ">", ">="]
SCHEMA = pa.schema([("row", pa.int64()), ("label", pa.int64())])

numbers = st.integers(0, 3500) | st.integers(-(2**40), 2**62)
compare = st.sampled_from([operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
leaves = st.one_of(
    st.builds(lambda f, n: f(pc.field("row"), n), compare, numbers),
    st.builds(lambda f, n: f(pc.field("label"), n), compare, st.sampled_from([7, -1, 30, 4])),
    st.builds(lambda n: pc.field("row").isin(pa.array(n, pa.int64())), st.lists(numbers, max_size=50)),
    st.builds(lambda n: pc.field("x2") > n, st.integers(0, 255)),
    st.builds(
        lambda n: pc.field("row") * 3 % 7 == n if hasattr(pc, "mod") else pc.field("row") * 3 == n, numbers
    ),
    st.builds(lambda n: pc.field("row").cast(pa.float64()) < n / 2, st.integers(0, 9000)),
    st.just(pc.field("row").is_valid()),
    st.just(pc.scalar(True)),
)
filters = st.recursive(
    leaves,
    lambda inner: (
        st.builds(operator.and_, inner, inner)
        | st.builds(operator.or_, inner, inner)
        | st.builds(operator.invert, inner)
    ),
    max_leaves=6,
)
columns = st.lists(st.sampled_from(TABLE.column_names), min_size=1, unique=True)


@settings(max_examples=200, deadline=None)
@given(filters, columns)
def test_a_filtered_scan_is_the_whole_table_filtered(kept, columns):
    got = TABLE.to_table(columns=columns, filter=kept)
    assert got.equals(WHOLE.filter(kept).select(columns)), str(kept)
    assert TABLE.scanner(filter=kept).count_rows() == TABLE.count_rows(kept) == len(got)


values = st.integers(-5, 3500)
conditions = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(TABLE.column_names), st.sampled_from(OPERATORS), values),
        st.builds("row between {} and {}".format, values, values),
        st.builds("row in ({}, {}, {})".format, values, values, values),
        st.builds("row % 7 = {}".format, st.integers(0, 7)),
        st.builds("x{} > x{}".format, st.integers(0, 3), st.integers(0, 3)),
        st.sampled_from(["row is not null", "x3 is null", "label = 7 or label = -1"]),
    ),
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(conditions, st.booleans())
def test_polars_and_duckdb_find_the_rows_that_they_find_in_the_whole_table(condition, is_one_column):
    wanted = "row" if is_one_column else "*"
    query = f"select {wanted} from {{}} where {condition}"
    found = duckdb.sql(query.format('"TABLE"')).to_arrow_table()
    assert found.equals(duckdb.sql(query.format("WHOLE")).to_arrow_table())
    lazy = TABLE.lazy().filter(pl.sql_expr(condition)).select(wanted)
    assert lazy.collect()["row"].to_list() == found["row"].to_pylist()
    streamed = lazy.collect(engine="streaming")
    assert streamed.equals(pl.DataFrame(WHOLE).filter(pl.sql_expr(condition)).select(wanted))


@pytest.mark.parametrize(
    "predicate",
    [
        pl.lit(None, pl.Boolean) | (pl.col("row") > 900),
        pl.lit(None, pl.Boolean) & (pl.col("row") > 900),
        pl.when(pl.col("x1") > 9).then(None).otherwise(pl.col("row") == 900),
        pl.col("x1") > pl.col("x1").mean(),
        (pl.col("row") > 900) & (pl.col("x1") > pl.col("x1").shift()),
        pl.col("row").cast(pl.String).str.ends_with("00") & (pl.col("row") < 900.5),
    ],
    ids=str,
)
def test_polars_filters_by_what_pyarrow_does_not_know(predicate):
    whole = pl.DataFrame(WHOLE).filter(predicate)
    assert TABLE.lazy().filter(predicate).collect().equals(whole)
    twice = TABLE.lazy().filter(predicate).filter(pl.col("row") < 2000).collect()
    assert twice.equals(whole.filter(pl.col("row") < 2000))


@pytest.mark.parametrize(
    ("kept", "most", "rows"),
    [
        (pc.field("row") == 2**50, 1, 256),
        ((pc.field("row") >= 2**50) & (pc.field("row") < 2**50 + 5000), 2, 5600),
        (pc.field("row").isin([5, 2**50, 2**59]), 3, 3 * 256),
        (pc.field("row") >= 2**60, 0, 0),
        ((pc.field("row") == 5) & (pc.field("label") == 3), 1, 256),
        ((pc.field("row") == 5) | (pc.field("label") == 3), 1, 2**60),
        (pc.field("row") > 2**59, 1, 2**59),
    ],
)
def test_few_rows_by_number_are_found_without_the_others(kept, most, rows):
    found = possible_ranges(kept, SCHEMA, range(2**60))
    assert len(found) <= most and sum(map(len, found)) <= rows
    assert all(a.stop < b.start for a, b in pairwise(found))


@pytest.mark.parametrize("row", [0, 255, 256, 511, 512, 1023])
def test_ends_of_ranges_belong_to_them(row):
    (found,) = possible_ranges(pc.field("row") == row, SCHEMA, range(1024))
    assert row in found and len(found) == 256


def test_no_rows_have_no_ranges():
    assert possible_ranges(pc.field("row") == 5, SCHEMA, range(5, 5)) == []
    assert possible_ranges(pc.field("row") == 5, SCHEMA, range(5, 6)) == [range(5, 6)]


def test_what_is_wrong_with_a_filter_shows_at_once():
    with pytest.raises(pa.ArrowInvalid, match="nothing"):
        TABLE.scanner(filter=pc.field("nothing") == 3).to_reader()
    with pytest.raises(pa.ArrowNotImplementedError, match="equal"):
        TABLE.scanner(filter=pc.field("row") == "x").to_reader()
