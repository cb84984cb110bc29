"""SIGTERM and SIGINT: a server ends in time, and nobody takes half a stream for a whole one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from served import HERE, Process, until

from fastgan.errors import UserError
from fastgan.virtual import connect


@pytest.mark.parametrize("signal_", [15, 2])
def test_stopping_under_load(numbers, tmp_path, signal_):
    """Some read on, some never read: the server ends in time, and nobody's rows are wrong."""
    with Process(tmp_path, str(numbers), "--threads", "1", "--grace", "1") as server:
        unread = [connect(server.uri).batches() for _ in range(2)]
        begun = [reader.read_next_batch() for reader in unread]
        results = []
        ready = threading.Barrier(5)

        def read():
            batches = connect(server.uri).batches()
            rows = [batches.read_next_batch()]
            ready.wait()
            try:
                for batch in batches:
                    rows = [*rows[-2:], batch]
            except (UserError, OSError, pa.ArrowException) as error:
                results.append((rows, str(error)))
            else:
                results.append((rows, None))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        ready.wait()
        begin = time.monotonic()
        code, out, _ = server.stop(signal_)
        assert code == 0 and time.monotonic() - begin < 8
        assert "stopping: 6 live streams" in out and "stopped" in out
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(results) == 4
        for rows, error in results:
            assert error is not None, "a stream that was cut off seemed whole"
            for batch in rows:
                first = batch["row"][0].as_py()
                assert pa.Table.from_batches([batch]).equals(HERE[first : first + len(batch)].to_table())
        assert begun
        with pytest.raises(UserError, match="Is it up"):
            connect(server.uri)


def test_streams_that_end_in_time_are_whole(numbers, tmp_path):
    with Process(tmp_path, str(numbers), "--threads", "1", "--grace", "60") as server:
        reader = connect(server.uri)[:500_000].batches()
        rows = [reader.read_next_batch()]
        stopped = ThreadPoolExecutor(1).submit(server.stop)
        until(lambda: server.health()["status"] == "draining")
        with pytest.raises(UserError, match="shutting down"):
            connect(server.uri)
        rows += list(reader)
        assert pa.Table.from_batches(rows).equals(HERE[:500_000].to_table())
        assert stopped.result(20)[0] == 0


def test_a_server_whose_output_nobody_reads_stops_as_others_do(numbers, tmp_path):
    """Its lines fail to be printed: one stream is read to its end, one that nobody reads is cut off."""
    with Process(tmp_path, str(numbers), "--threads", "1", "--grace", "2") as server:
        unread = connect(server.uri).batches()
        reader = connect(server.uri)[:500_000].batches()
        first = unread.read_next_batch(), reader.read_next_batch()
        server.child.stdout.close()
        stopped = ThreadPoolExecutor(1).submit(server.stop)
        until(lambda: server.health()["status"] == "draining")
        read = pa.Table.from_batches([first[1], *reader])
        assert read.equals(HERE[:500_000].to_table())
        code, _, err = stopped.result(20)
        assert (code, err) == (0, "")


def test_a_server_without_output_stops_with_its_code(numbers, tmp_path):
    with Process(tmp_path, str(numbers)) as server:
        server.child.stdout.close()
        code, _, err = server.stop()
        assert (code, err) == (0, "")


_AT_EVERY_LINE = """
import os, signal, sys
from unittest import mock
from fastgan import serve
from fastgan.virtual import server

def trace(frame, event, _):
    global left
    left -= event == "line"
    if event == "line" and left == 0:
        signal.raise_signal(signal.SIGTERM)
    return trace

def say(line):  # the first one: from here on the server waits
    serve._say = lambda line: None
    sys._getframe(1).f_trace = trace
    sys.settrace(trace)

serve._say, children = say, []
server.Server = mock.Mock(return_value=mock.Mock(port=1))
for left in range(1, 13):
    child = os.fork()
    if not child:
        signal.alarm(10)  # ends one that hangs
        os._exit(serve.main(["--port", "0", sys.argv[1]]))
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""


def test_a_signal_at_any_line_of_the_wait_stops_a_server(numbers):
    """Whatever lock that line holds, the handler takes none: each of 12 lines is tried in a process."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_EVERY_LINE, str(numbers)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{[0] * 12}\n", "")
