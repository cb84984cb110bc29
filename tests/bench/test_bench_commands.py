"""Bad arguments of the commands of ``bench``: one line that names what came and what was wanted."""

from __future__ import annotations

import pytest

from bench import gpu_model, gpu_peers, gpu_table, machine, ops_choice
from bench.peers import virtual

BAD = [
    (virtual, [], "rows"),
    (virtual, ["-5"], "wanted a positive whole number"),
    (virtual, ["x"], "rows: got x; wanted a positive whole number"),
    (ops_choice, ["--only", "("], "--only: got (; wanted a regular expression"),
    (ops_choice, ["--threads", "999"], "--threads: got 999; wanted 1 to"),
    (gpu_table, ["--only", "("], "--only: got (; wanted a regular expression"),
    (gpu_table, ["--processes", "0"], "--processes: got 0; wanted a positive whole number"),
    (gpu_model, ["--batch", "0"], "--batch: got 0; wanted a positive whole number"),
    (gpu_model, ["--hidden", "-3"], "--hidden: got -3; wanted a positive whole number"),
    (gpu_peers, ["--batch", "0"], "--batch: got 0; wanted a positive whole number"),
]


@pytest.mark.parametrize(("command", "arguments", "said"), BAD, ids=str)
def test_bad_arguments(command, arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and said in printed.err and not printed.out


def test_rows_of_virtual_tables_are_read(monkeypatch, capsys):
    for kind in ("DuckDb", "Polars"):
        monkeypatch.setattr(virtual, kind, virtual.Stream)
    virtual.main(["5_000"])
    assert capsys.readouterr().out.count("Stream: 5,000 rows, ") == 3


def test_one_core_has_a_default_of_one_thread(monkeypatch, capsys):
    monkeypatch.setattr(machine, "cores", lambda: [0])
    monkeypatch.setattr(machine, "keep_memory", lambda: None)
    seen = []
    monkeypatch.setattr(ops_choice, "measure", lambda case, *_: seen.append(case) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ops_choice.main([])
    assert seen[0].problem.threads == 1
    with pytest.raises(SystemExit):
        ops_choice.main(["--threads", "2"])
    assert "--threads: got 2; wanted 1 to 1" in capsys.readouterr().err
