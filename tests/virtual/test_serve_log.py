"""The access log: a line for each call, short ones, and rows whether or not they can be written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.flight as flight
import pytest
from served import HERE, Process, calls

from fastgan.errors import UserError
from fastgan.virtual import connect
from fastgan.virtual.access import Log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_rows_are_served_where_the_log_cannot_be_written(numbers, tmp_path):
    with Process(tmp_path, str(numbers), "--log", "/dev/full") as server:
        assert connect(server.uri)[:50_000].to_table().equals(HERE[:50_000].to_table())
        with pytest.raises(UserError, match="x9"):
            connect(server.uri, columns=["x9999"])
        assert server.health()["lost_log_lines"] >= 3
        code, _, err = server.stop()
        assert code == 0 and "Traceback" not in err


def test_a_log_tells_how_many_lines_it_lost():
    """The disk is full after half a line, for two lines more, and free again."""

    class Disk(io.BytesIO):
        room = 100

        def write(self, content):
            if not self.room:
                raise OSError(28, "full")
            self.room -= (taken := min(len(content), self.room))
            return super().write(content[:taken])

    disk = Disk()
    log = Log(disk)
    for number, room in enumerate([100, 30, 0, 0, 1000, 1000]):
        disk.room = room
        log.write(number=number)
    lines = disk.getvalue().decode().splitlines()
    assert [json.loads(line)["number"] for line in (lines[0], *lines[2:])] == [0, 4, 5]
    assert [json.loads(line).get("lost") for line in lines[2:]] == [3, None] and log.lost == 0


LONG = "x1" * 450_000


@pytest.mark.parametrize(
    "asked",
    [
        {"table": LONG},
        {"table": "numbers", "generator": LONG},
        {"table": "numbers", "columns": [LONG]},
        {"table": "numbers", "columns": ["row"] * 150_000},
        {"table": "numbers", "where": {"label": LONG}},
        {"table": "numbers", "where": {LONG: 1}},
        {"table": "numbers", "where": {"label": [[1]] * 100_000}},
        {"table": "numbers", LONG: 1},
    ],
    ids=lambda asked: json.dumps(asked)[:40],
)
def test_a_long_request_is_refused_in_a_short_line_in_no_time(asked, served_numbers):
    before = len(served_numbers.lines())
    with flight.connect(served_numbers.uri) as client:
        with pytest.raises(flight.FlightServerError) as error:
            client.do_get(flight.Ticket(json.dumps({"rows": 1} | asked).encode()), calls()).read_all()
        assert len(str(error.value).partition("gRPC client debug")[0]) < 1500
    (line,) = served_numbers.lines()[before:]
    assert line["outcome"].startswith(str(error.value)[:20])
    assert len(json.dumps(line)) < 1200 and line["seconds"] < 0.2


@pytest.fixture(scope="module")
def served_numbers(files, tmp_path_factory):
    with Process(tmp_path_factory.mktemp("log"), str(files / "numbers.safetensors")) as process:
        yield process
