"""The one exception that users see."""

from __future__ import annotations

import pickle
import time

from fastgan.errors import UserError, brief, nearest


def test_what_is_long_is_cut():
    assert brief("row") == "'row'" and brief(["row", 5]) == "['row', 5]"
    for value in ("x" * 10**6, ["x"] * 10**6, {"x" * 10**6: ["y"]}, [[["x" * 10**6]]], b"x" * 10**6):
        assert len(brief(value)) < 500
    assert brief(10**20) == "1" + "0" * 20 and brief([-(10**5000)]) == "[a number of 16,610 bits]"


def test_the_nearest_name_is_found_in_no_time():
    assert nearest("rwo", ["label", "row"]) == "Did you mean 'row'?"
    assert nearest("q", ["row"]) == ""
    begin = time.perf_counter()
    for _ in range(10):
        assert nearest("x" * 10**6, ["x" * 10**6]) == ""
    assert nearest("x1", (f"x{i}" for i in range(10**6)))
    assert time.perf_counter() - begin < 0.2


def test_it_comes_back_from_a_worker_process():
    for error in (UserError("--rows", 3, "4"), UserError("--rows", 3, "4", "Ask for more.")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is UserError and str(back) == str(error) and back.args == error.args
