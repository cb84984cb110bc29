"""What a virtual table refuses: one line that says what came and what was wanted."""

from __future__ import annotations

import numpy as np
import pyarrow.dataset as ds
import pytest

from fastgan.errors import UserError
from fastgan.virtual import VirtualTable


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"label": 8}, "wanted a label of 7, -1, 30"),
        ({"label": 10**5000}, "16,610 bits'; wanted a label of 7, -1, 30"),
        ({"label": "3"}, "30"),
        ({"class": 7}, "condition on the label"),
        ({}, "condition on the label"),
        (7, "condition on the label"),
        ({"label": 7, "row": 1}, "condition on the label"),
    ],
)
def test_other_conditions(labelled, where, message):
    with pytest.raises(UserError, match=message):
        VirtualTable(labelled, 1, where=where)


def test_a_condition_without_labels(features):
    with pytest.raises(UserError, match=r"trained without labels\. Train it with --condition"):
        VirtualTable(features, 1, where={"label": 3})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rwo"], "Did you mean 'row'"),
        ([], "at least one"),
        ("row", r"a list of at least one name\. Write \['row'\]\."),
        (["x1" * 10**6], "columns: got 'x1x1.{1,80}'; wanted one of row"),
        (5, "a list"),
        (["row", "row"], "once"),
        ([1], "columns: got 1"),
    ],
)
def test_columns_that_are_not_there(features, names, message):
    with pytest.raises(UserError, match=message):
        VirtualTable(features, 1, columns=names)
    with pytest.raises(UserError, match=message):
        VirtualTable(features, 1).select(names)


def test_a_column_left_out_cannot_be_selected_again(features):
    with pytest.raises(UserError, match="one of x1"):
        VirtualTable(features, 1, columns=["x1"]).select(["x2"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: VirtualTable(g, -1), "rows"),
        (lambda g: VirtualTable(g, 2**62 + 1), "rows"),
        (lambda g: VirtualTable(g, "5"), "rows: got '5'"),
        (lambda g: VirtualTable(g, 5, seed=-1), "seed"),
        (lambda g: VirtualTable(g, 5, threads=-1), "threads"),
        (lambda g: VirtualTable("/nowhere/x.safetensors", 5), "/nowhere/x.safetensors: got no such file"),
        (lambda g: VirtualTable(g, 5)[3], "range of rows"),
        (lambda g: VirtualTable(g, 5)[::2], "range of rows"),
        (lambda g: VirtualTable(g, 5)[1.5:3], r"table\[\.\.\.\]: got slice\(1.5, 3, None\); wanted a range"),
        (lambda g: VirtualTable(g, 5)["row"], "range of rows"),
        (lambda g: VirtualTable(g, 5)[::0], "range of rows"),
        (
            lambda g: VirtualTable(g, 5).take([5]),
            "indices: got int64, 5 to 5; wanted whole numbers from 0 to 4",
        ),
        (lambda g: VirtualTable(g, 5).take([-1]), "indices"),
        (lambda g: VirtualTable(g, 5).take([0.5]), "indices"),
        (lambda g: VirtualTable(g, 5).take(["a"]), r"indices: got <U1 \[1\]; wanted a list: whole numbers"),
        (lambda g: VirtualTable(g, 5).take(5), "indices: got 5; wanted a list"),
        (lambda g: VirtualTable(g, 5).take(None), "indices: got None; wanted a list"),
        (lambda g: VirtualTable(g, 5).take([[1]]), r"indices: got int64 \[1, 1\]; wanted a list"),
        (lambda g: VirtualTable(g, 5).take([[1], []]), "indices"),
        (lambda g: VirtualTable(g, 0).take([0]), "there are no rows"),
        (lambda g: VirtualTable(None, 5), "file: got None; wanted the path"),
        (lambda g: VirtualTable(g, np.array([5, 6])), "rows: got array"),
        (lambda g: VirtualTable(g, 5).to_table(columns=["rwo"]), "Did you mean 'row'"),
        (lambda g: VirtualTable(g, 5).batches(["rwo"]), "Did you mean 'row'"),
        (lambda g: VirtualTable(g, 5).batches([]), "columns: got .*; wanted a list of at least one name"),
        (lambda g: VirtualTable(g, 5).filter(ds.field("row") > 1), "scanner"),
    ],
)
def test_bad_arguments_are_named(features, call, message):
    with pytest.raises(UserError, match=message):
        call(features)
