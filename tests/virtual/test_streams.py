"""A stream's rows: computed ahead, ended whenever the client leaves, counted and logged."""

from __future__ import annotations

import io
import json
import threading
import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from served import until

from fastgan.virtual.access import Limits, Log, Traffic
from fastgan.virtual.streams import stream


class Counted:
    """Batches of the numbers 0, 1 and so on, which know how many were computed, and by which threads."""

    def __init__(self, count: int) -> None:
        self.count, self.computed, self.threads = count, 0, set()

    def __iter__(self):
        for number in range(self.count):
            self.threads.add(threading.current_thread())
            self.computed += 1
            yield pa.record_batch({"row": [number]})


@pytest.fixture
def traffic():
    traffic = Traffic(Limits())
    traffic.enter("me")
    return traffic


@pytest.fixture
def disk():
    return io.BytesIO()


@pytest.fixture
def begun(traffic, disk):
    """Return what starts a stream of some batches."""

    def begin(batches, is_gone=lambda: False):
        rows = stream(traffic, Log(disk), iter(batches), {"client": "me"}, is_gone)
        assert next(rows) is None
        return rows

    return begin


def logged(disk) -> dict:
    (line,) = disk.getvalue().splitlines()
    return json.loads(line)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_all_batches_come_in_order(count, begun, traffic, disk):
    assert [batch["row"][0].as_py() for batch in begun(Counted(count))] == list(range(count))
    assert traffic.streams == 0
    assert (logged(disk)["sent"], logged(disk)["outcome"]) == (count, "ok")


def test_one_batch_is_computed_while_another_is_sent_and_no_more(begun):
    batches = Counted(10)
    rows = begun(batches)
    assert batches.computed == 0
    for sent in (1, 2, 3):
        next(rows)  # is on its way until the next one is asked for
        until(lambda sent=sent: batches.computed == sent + 1)
    assert threading.current_thread() in batches.threads and len(batches.threads) == 2
    rows.close()
    assert batches.computed == 4
    assert not any(thread.is_alive() for thread in batches.threads - {threading.current_thread()})


def test_a_client_that_leaves(begun, traffic, disk):
    rows = begun(Counted(10))
    next(rows)
    del rows
    assert traffic.streams == 0
    assert (logged(disk)["sent"], logged(disk)["outcome"]) == (0, "left")


def test_a_stream_that_is_freed_while_its_thread_holds_the_locks_ends(traffic, disk):
    """The collector of cycles runs where memory is asked for: here as another enters, or logs."""

    class Collecting:
        total = rate = 64
        streams = property(lambda self: rows.pop() and 16)

    class Disk:
        def write(self, line):
            return rows.pop() and self.write(line) if rows else disk.write(line)

    traffic.enter("me")
    log = Log(Disk())
    rows = [stream(traffic, log, iter(Counted(10)), {"client": "me"}, lambda: False) for _ in range(2)]
    assert [next(row) for row in rows] == [None, None]
    traffic.limits = Collecting()
    work = threading.Thread(target=lambda: (traffic.enter("you"), log.write(client="you")), daemon=True)
    work.start()
    work.join(5)
    assert not work.is_alive() and traffic.streams == 1
    assert [json.loads(line)["client"] for line in disk.getvalue().splitlines()] == ["me", "me", "you"]


def test_a_client_that_leaves_while_it_waits_pays_for_what_it_got(begun, traffic, disk):
    traffic.limits = Limits(rate=0.01)
    left = threading.Event()
    rows = begun(Counted(10), left.is_set)
    next(rows)
    end = traffic._clients["me"].next_free
    threading.Timer(0.3, left.set).start()
    start = time.monotonic()
    assert next(rows, None) is None
    assert time.monotonic() - start < 5 and traffic.streams == 0
    assert traffic._clients["me"].next_free == pytest.approx(end)
    assert (logged(disk)["sent"], logged(disk)["outcome"]) == (1, "left")


def test_what_goes_wrong_in_the_thread_reaches_the_client(begun, traffic):
    def batches():
        yield pa.record_batch({"row": [0]})
        raise MemoryError("no room")

    rows = begun(batches())
    next(rows)
    with pytest.raises(MemoryError, match="no room"):
        next(rows)
    assert traffic.streams == 0


def test_a_shutdown_ends_it_with_an_error(begun, traffic, disk):
    rows = begun(Counted(10))
    next(rows)
    traffic.closing.set()
    with pytest.raises(flight.FlightUnavailableError, match="shutting down"):
        next(rows)
    assert logged(disk)["outcome"] == "ended by the shutdown" and traffic.streams == 0
