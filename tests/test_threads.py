"""How many processors a process may use: control groups as files of a made-up tree."""

from __future__ import annotations

import os

import pytest

from fastgan import threads
from fastgan.errors import UserError

V2, V1 = "0::/a/b\n", "2:cpuacct:/x\n1:cpu:/a/b\n0::/\n"


def quota(limit):
    """Return the files of version 1 of a group."""
    return {"cpu.cfs_quota_us": f"{limit}\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {"cpu.max": "max 100000"}, 8),
        (V2, {"a/b/cpu.max": "250000 100000"}, 3),
        (V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 50000"}, 2),  # a parent's limit counts
        (V2, {"a/b/cpu.max": "100000 100000", "a/cpu.max": "400000 100000"}, 1),
        (V2, {"a/b/cpu.max": "1000 100000"}, 1),
        (V2, {"a/b/cpu.max": "9000000 100000"}, 8),
        (V2, {"cpu.max": "400000 100000"}, 4),  # a container that sees its own group as the root
        (V2, {"c/cpu.max": "100000 100000"}, 8),  # somebody else's
        (V2, {"a/b/cpu.max": "nonsense"}, 8),
        (V2, {"a/b/cpu.max": "100000 0"}, 8),
        ("0::/../../etc\n", {"cpu.max": "200000 100000"}, 2),
        ("", {"cpu.max": "200000 100000"}, 8),
        ("nonsense\n", {"cpu.max": "200000 100000"}, 8),
        (None, {"cpu.max": "200000 100000"}, 2),
        (V1, {f"cpu/a/b/{k}": v for k, v in quota(150000).items()}, 2),
        (V1, {f"cpu/{k}": v for k, v in quota(300000).items()}, 3),
        (V1, {f"cpu/a/{k}": v for k, v in quota(-1).items()}, 8),
        (V1, {f"cpuacct/x/{k}": v for k, v in quota(100000).items()}, 8),
        ("3:cpu,cpuacct:/a\n", {f"cpu,cpuacct/a/{k}": v for k, v in quota(200000).items()}, 2),
        ("3:cpu,cpuacct:/a\n", {f"cpu/a/{k}": v for k, v in quota(200000).items()}, 2),
    ],
)
def test_usable_cpus(tmp_path, monkeypatch, membership, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_MEMBERSHIP", tmp_path / "membership")
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert threads.usable_cpus() == expected


def test_this_process():
    assert 1 <= threads.usable_cpus() <= (os.cpu_count() or 1)


def test_a_negative_number_is_refused():
    with pytest.raises(UserError, match="threads"):
        threads.thread_count(-1)
